"""Find, read and write adapters by path."""

from pathlib import Path

from dora_diffusion.adapters import AdapterState
from dora_diffusion.config import ExportConfig
from dora_diffusion.errors import ConfigError, FormatError
from dora_diffusion.formats.checkpoint_folders import checkpoints
from dora_diffusion.formats.files import read_safetensors
from dora_diffusion.registry import FORMATS

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"


def adapter_file(path: Path) -> Path:
    """The adapter file behind a run folder or a file.

    Raises:
        FormatError: there is none; the message says what the folder holds.
    """
    if path.is_dir():
        file = path / WEIGHTS_NAME
        if file.is_file():
            return file
        if checkpoints(path):
            raise FormatError(
                f"The run in {path} has not finished: it has checkpoints and no {WEIGHTS_NAME}. "
                "Start it again to resume it."
            )
        raise FormatError(f"{path} holds no adapter: {WEIGHTS_NAME} is missing. Give a run folder or an adapter file.")
    if not path.is_file():
        raise FormatError(f"There is no adapter at {path}. Give a run folder or a .safetensors file.")
    return path


def load_adapter(path: str | Path) -> AdapterState:
    """Read the adapter in a run folder or a file; its format is found from its content.

    Raises:
        FormatError: there is none, or no known format reads it.
    """
    file = adapter_file(Path(path))
    tensors, header = read_safetensors(file)
    keys = list(tensors)
    for name in FORMATS:
        format_ = FORMATS.load(name)
        if format_.recognises(keys):
            state: AdapterState = format_.read(file, tensors, header)
            return state
    raise FormatError(
        f"{file} is no adapter that can be read here (first key: {keys[0] if keys else 'none'}). "
        f"Known formats: {', '.join(FORMATS)}."
    )


def export(config: ExportConfig) -> Path:
    """Write an adapter as another tool reads it.

    Raises:
        ConfigError: no adapter was given, or the output is not a .safetensors file.
        FormatError, MachineError: it cannot be read, or not be written.
    """
    if config.adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    if config.output.suffix != ".safetensors":
        raise ConfigError(f"The output is a .safetensors file, got {config.output}.")
    FORMATS.load(config.format).write(load_adapter(config.adapter), config.output)
    return config.output
