"""Find and read adapters by path."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.errors import FormatError
from dora_diffusion.formats.checkpoint_folders import checkpoints
from dora_diffusion.formats.files import read_safetensors
from dora_diffusion.formats.format import Base, Format
from dora_diffusion.formats.peft_format import WEIGHTS as PEFT_WEIGHTS
from dora_diffusion.formats.peft_format import is_peft_folder, read_folder
from dora_diffusion.formats.words import take_word
from dora_diffusion.registry import FORMATS

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
SETTINGS_NAME = "config.yaml"  # of a run's folder: every setting


def adapter_file(path: Path) -> Path:
    """The adapter behind a run folder, a file, or a folder of PEFT's (which stays a folder).

    Raises:
        FormatError: there is none; the message says what the folder holds.
    """
    if path.is_dir():
        file = path / WEIGHTS_NAME
        if file.is_file():
            return file
        if is_peft_folder(path):
            return path
        if checkpoints(path):
            raise FormatError(
                f"The run in {path} has not finished: it has checkpoints and no {WEIGHTS_NAME}. "
                "Start it again to resume it."
            )
        if path in checkpoints(path.parent):
            raise FormatError(
                f"{path} is a checkpoint, from which a run goes on, and no adapter yet. Give the run's folder: "
                f"{path.parent}."
            )
        raise FormatError(f"{path} holds no adapter: {WEIGHTS_NAME} is missing. Give a run folder or an adapter file.")
    if not path.is_file():
        raise FormatError(f"There is no adapter at {path}. Give a run folder or a .safetensors file.")
    if path.name == PEFT_WEIGHTS and is_peft_folder(path.parent):
        return path.parent
    return path


def load_adapter(path: str | Path, base: Base | None = None) -> AdapterState:
    """Read the adapter in a run folder, a file or PEFT's folder; its format is found from its content.

    Args:
        base: for files that mean nothing exact without their base's weights (norms per input column).

    Raises:
        FormatError: there is none, or no known format reads it.
    """
    file = adapter_file(Path(path))
    tensors, header = read_tensors(file)
    word, tensors = take_word(file, tensors, header)
    return replace(format_of(file, tensors).read(file, tensors, header, base), word=word)


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of a file, or of PEFT's folders as if they were one.

    Raises:
        FormatError: it is damaged.
    """
    return read_folder(file) if file.is_dir() else read_safetensors(file)


def format_of(file: Path, tensors: dict[str, Tensor]) -> Format:
    """The format whose tensor names these are.

    Raises:
        FormatError: none's.
    """
    keys = list(tensors)
    for name in FORMATS:
        format_: Format = FORMATS.load(name)
        if format_.recognises(keys):
            return format_
    raise FormatError(
        f"{file} is no adapter that can be read here (first key: {keys[0] if keys else 'none'}). "
        f"Known formats: {', '.join(FORMATS)}."
    )
