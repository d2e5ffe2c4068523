"""ComfyUI's own code: key maps, loading, and the weights it computes."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

from kit import Answer, Base, stand_in, work
from safetensors.torch import load_file

CLIP = {"sd1": "clip_l", "sd2": "clip_h", "sdxl": "clip_l"}


class _Log(logging.Handler):
    """What is logged: keys not loaded, errors that are swallowed."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def read(base: Base, file: Path) -> Answer:
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_detection

    log = _Log()
    logging.getLogger().addHandler(log)
    checkpoint = load_file(base.folder / "checkpoint.safetensors")
    config = comfy.model_detection.detect_unet_config(checkpoint, "model.diffusion_model.")
    names = {f"diffusion_model.{original}.weight": f"unet.{path}" for path, (original, _) in base.unet().items()}
    for component, clip in (("text_encoder", CLIP[base.family]), ("text_encoder_2", "clip_g")):
        names |= {f"{clip}.transformer.{path}.weight": f"{component}.{path}" for path in base.text(component)}
    weights = {name: base.weights[ours] for name, ours in names.items()}
    unet = SimpleNamespace(
        state_dict=lambda: {k: w for k, w in weights.items() if k.startswith("diffusion_model.")},
        model_config=SimpleNamespace(unet_config=config),
    )
    clip = SimpleNamespace(state_dict=lambda: {k: w for k, w in weights.items() if k.startswith("clip_")})
    # comfy.sd.load_lora_for_models, without the patcher that would copy a model to a GPU.
    keys = comfy.lora.model_lora_keys_unet(unet, {})
    keys = comfy.lora.model_lora_keys_clip(clip, keys)
    loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(load_file(file)), keys)
    merged = {
        names[name]: comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weights[name].clone(), name)
        for name, patch in loaded.items()
        if name in names
    }
    logging.getLogger().removeHandler(log)
    over = [line.partition(": ")[2] for line in log.lines if line.startswith("lora key not loaded")]
    return Answer(merged, over)


if __name__ == "__main__":
    checkout = sys.argv[1]
    sys.path.insert(0, checkout)
    stand_in("torchvision", "einops", "torchsde", "scipy", "kornia", "av", "sentencepiece", "aiohttp", "comfy_kitchen")
    given, sys.argv = sys.argv, sys.argv[:1]
    from comfy.cli_args import args

    args.cpu = True
    sys.argv = given
    work(read)
