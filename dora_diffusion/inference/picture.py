"""PNG files that carry the settings they were made with."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dora_diffusion.errors import DataError

KEY = "dora_diffusion"


def save_picture(image: Image.Image, path: Path, settings: dict[str, Any]) -> Path:
    """Write a PNG with its settings twice: as A1111's ``parameters`` text, and as JSON under ``dora_diffusion``."""
    info = PngInfo()
    info.add_text("parameters", parameters_text(settings))
    info.add_text(KEY, json.dumps(settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, pnginfo=info)
    return path


def parameters_text(settings: dict[str, Any]) -> str:
    """The settings in the form that A1111, Forge and most viewers show and read back."""
    pairs = {
        "Steps": settings.get("num_inference_steps"),
        "Sampler": settings.get("sampler"),
        "CFG scale": settings.get("guidance_scale"),
        "Seed": settings.get("seed"),
        "Size": f"{settings.get('width')}x{settings.get('height')}",
        "Model": settings.get("model"),
        "DoRA": settings.get("adapter"),
        "DoRA strength": settings.get("strength") if settings.get("adapter") else None,
    }
    lines = [str(settings.get("prompt", ""))]
    if settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    lines.append(", ".join(f"{key}: {value}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings a PNG of ours was made with.

    Raises:
        DataError: it is no picture, or carries none.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(KEY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}.") from None
    if text is None:
        raise DataError(f"{path} carries no settings of ours; only pictures made here do.")
    try:
        settings = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise DataError(f"The settings that {path} carries are damaged; it was not made here, or was changed since.")
    return settings
