"""diffusers' and PEFT's own code, as installed: ``load_lora_weights``, and each layer's merge."""

from pathlib import Path

from kit import Answer, Base


def read(base: Base, file: Path) -> Answer:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(base.folder / "pipeline", safety_checker=None)
    pipe.load_lora_weights(file.parent, weight_name=file.name)
    return Answer(merged(base, pipe))


def merged(base: Base, pipe):
    """The merged weight of every layer that carries an adapter, by canonical name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        root = getattr(pipe, component, None)
        for path, part in root.named_modules() if root is not None else ():
            if isinstance(part, BaseTunerLayer):
                part.merge()
                level = "" if component == "unet" or path.startswith("text_") else "text_model."
                found[f"{component}.{level}{path}"] = part.get_base_layer().weight
    return found
