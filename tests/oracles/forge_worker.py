"""Forge's own code: its guard against foreign files, key maps, loading, and the weights it computes."""

import sys
from pathlib import Path
from types import SimpleNamespace

from kit import Answer, Base, module, stand_in, work
from safetensors.torch import load_file

CLIP = {"sd1": "clip_l", "sd2": "clip_h", "sdxl": "clip_l"}


class _Patcher:
    """A model's patches, kept; what Forge's own patcher keeps, without its memory management."""

    def __init__(self, weights, **model):
        self.weights = weights
        self.model = self.cond_stage_model = SimpleNamespace(state_dict=lambda: weights, **model)
        self.patches = {}

    def clone(self):
        return self

    def add_patches(self, *, filename, patches, strength_patch=1.0, online_mode=False):
        self.patches |= {name: patch for name, patch in patches.items() if name in self.weights}
        return list(self.patches)


def read(base: Base, file: Path) -> Answer:
    import backend.patcher.lora as lora
    import networks

    names = {f"diffusion_model.{original}.weight": f"unet.{path}" for path, (original, _) in base.unet().items()}
    unet = _Patcher(
        {name: base.weights[ours] for name, ours in names.items()},
        diffusion_model=SimpleNamespace(config=_config(base)),
        config=SimpleNamespace(huggingface_repo=base.family),
    )
    texts = {}
    for component, clip in (("text_encoder", CLIP[base.family]), ("text_encoder_2", "clip_g")):
        texts |= {f"{clip}.transformer.{path}.weight": f"{component}.{path}" for path in base.text(component)}
    text = _Patcher({name: base.weights[ours] for name, ours in texts.items()})
    said: list[str] = []
    networks.print = lambda *words: said.append(" ".join(map(str, words)))
    networks.load_lora_for_models(unet, text, load_file(file), 1.0, 1.0, filename="file")
    refusal = next((line for line in said if "version mismatch" in line), "")
    merged = {}
    for patcher, ours in ((unet, names), (text, texts)):
        for name, patch in patcher.patches.items():
            merged[ours[name]] = lora.merge_lora_to_weight(
                [(1.0, patch, 1.0, None, None)], patcher.weights[name].clone(), name
            )
    return Answer(merged, None, refusal)


def _config(base: Base):
    """The UNet's configuration in the terms of the original code, from diffusers'."""
    import json

    config = json.loads((base.folder / "pipeline" / "unet" / "config.json").read_text())
    per_block = config["layers_per_block"]
    depths = config["transformer_layers_per_block"]
    depths = [depths] * len(config["block_out_channels"]) if isinstance(depths, int) else depths
    down = [d if "CrossAttn" in kind else 0 for d, kind in zip(depths, config["down_block_types"], strict=True)]
    first = config["block_out_channels"][0]
    return {
        "num_res_blocks": [per_block] * len(down),
        "channel_mult": [channels // first for channels in config["block_out_channels"]],
        "transformer_depth": [d for d in down for _ in range(per_block)],
        "transformer_depth_output": [d for d in down for _ in range(per_block + 1)],
        "transformer_depth_middle": depths[-1],
    }


if __name__ == "__main__":
    checkout = Path(sys.argv[1])
    sys.path[:0] = [str(checkout / "extensions-builtin" / "sd_forge_lora"), str(checkout)]
    # The parts that would start a server or ask for a GPU.
    options = SimpleNamespace(lora_dir="nowhere")
    module("modules")
    module("modules.shared", cmd_opts=options, walk_files=lambda *_, **__: [], opts=SimpleNamespace())
    for part in ("sd_models", "errors", "scripts", "cache", "hashes"):
        module(f"modules.{part}")
    sys.path_importer_cache.clear()
    import backend

    module("backend.args", dynamic_args={})
    module(
        "backend.memory_management",
        cast_to_device=lambda tensor, device, dtype: tensor.to(device, dtype),
    )
    module("backend.utils", load_torch_file=lambda path, **_: load_file(path))
    module("backend.operations")
    backend.memory_management, backend.utils = sys.modules["backend.memory_management"], sys.modules["backend.utils"]
    stand_in("gguf", "torchvision", "einops")
    work(read)
