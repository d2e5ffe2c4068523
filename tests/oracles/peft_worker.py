"""PEFT's own code, as installed: ``PeftModel.from_pretrained`` on every component that the folder has."""

from pathlib import Path

from diffusers_worker import merged
from kit import Answer, Base


def read(base: Base, file: Path) -> Answer:
    from diffusers import DiffusionPipeline
    from peft import PeftModel

    pipe = DiffusionPipeline.from_pretrained(base.folder / "pipeline", safety_checker=None)
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if (file / part).is_dir()]
    if not parts:
        raise FileNotFoundError(f"no component's folder in {file}")
    for part in parts:
        PeftModel.from_pretrained(getattr(pipe, part), file / part)
    return Answer(merged(base, pipe))
