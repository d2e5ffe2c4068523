"""What lies at an output already: an export of ours gives way to a new one, whatever else there is stays."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.adapters_on_disk import SETTINGS_NAME, WEIGHTS_NAME
from dora_diffusion.formats.checkpoint_folders import checkpoints
from dora_diffusion.formats.header import PREFIX
from dora_diffusion.formats.peft_format import WEIGHTS as PEFT_WEIGHTS
from dora_diffusion.formats.peft_format import is_peft_folder


def check_replaceable(output: Path) -> None:
    """Raises: ConfigError: something is there that no export of ours is, or that a run learned."""
    place = output.resolve()
    if _is_of_a_run(place):
        raise ConfigError(f"{output} is what a run learned, which would be gone; give another --output.")
    files = list(place.rglob(PEFT_WEIGHTS)) if is_peft_folder(place) else [place] if place.is_file() else []
    if not all(map(_is_ours, files)):
        raise ConfigError(f"{output} is there and is no export of ours; give another --output.")


def _is_of_a_run(file: Path) -> bool:
    is_result = file.name == WEIGHTS_NAME and (file.parent / SETTINGS_NAME).is_file()
    return file.is_file() and (is_result or file.parent in checkpoints(file.parent.parent))


def _is_ours(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as opened:
            return f"{PREFIX}kind" in (opened.metadata() or {})  # of an adapter, which no merged model's header has
    except (SafetensorError, OSError):
        return False
