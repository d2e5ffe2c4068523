"""Find, read and write adapters by path."""

import json
import logging
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.changes import needs_base
from dora_diffusion.adapters.lowrank import RankRule
from dora_diffusion.adapters.plain_lora import plain_lora
from dora_diffusion.config import ExportConfig
from dora_diffusion.config.files import read_yaml
from dora_diffusion.config.ranks import Ranks
from dora_diffusion.errors import ConfigError, FormatError
from dora_diffusion.formats.approximation import rule_of, told
from dora_diffusion.formats.base_weights import BaseByName, weights_for
from dora_diffusion.formats.checkpoint_folders import checkpoints
from dora_diffusion.formats.files import read_safetensors
from dora_diffusion.formats.format import Base, Format
from dora_diffusion.formats.peft_format import WEIGHTS as PEFT_WEIGHTS
from dora_diffusion.formats.peft_format import is_peft_folder, read_folder
from dora_diffusion.formats.rounding import BOUNDS
from dora_diffusion.formats.words import take_word, write_embedding
from dora_diffusion.registry import FORMATS

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
_SETTINGS = "config.yaml"  # of a run's folder
_SECTIONS = ("adapter", "loss", "optim")  # what training was; the others tell of folders on one machine


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
    tensors, header = read_folder(file) if file.is_dir() else read_safetensors(file)
    word, tensors = take_word(file, tensors, header)
    return replace(format_of(file, tensors).read(file, tensors, header, base), word=word)


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


def export(config: ExportConfig) -> Path:
    """Write an adapter as another tool reads it. The base is loaded where the format needs its weights.

    Raises:
        ConfigError: no adapter was given, the output is not what the format writes, or its base is not known.
        FormatError, AdapterError, ModelError, MachineError: adapter or base cannot be read or do not fit, or the file
            cannot be written.
    """
    if config.adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    format_: Format = FORMATS.load(config.format)
    check_output(config.output, format_)
    given = config.pretrained_model_name_or_path
    base = BaseByName(given) if given else None
    state = load_adapter(config.adapter, base)
    state = replace(state, metadata=state.metadata | _settings(config.adapter))
    base = base or BaseByName(state.base_name)
    if config.format == "lora":
        state = _nearest_lora(state, base, rule_of(config))
    format_.write(state, config.output, base, config.precision)
    if state.word is not None and not format_.carries_words:
        logger.warning(
            "Readers of %s find no new tokens in such a file: those of %r are in %s, an embedding for its own folder.",
            config.format,
            state.word.trigger,
            write_embedding(state.word, config.output),
        )
    if config.precision != "fp32":
        bound = 100 * BOUNDS[config.precision]
        logger.warning("In %s a layer's change may be off by %.2g %% of itself.", config.precision, bound)
    return config.output


def _settings(adapter: Path) -> dict[str, str]:
    """How the run in a folder was trained, for the header of a file that leaves it."""
    file = adapter / _SETTINGS
    if not file.is_file():
        return {}
    sections = read_yaml(file)
    return {"settings": json.dumps({name: sections[name] for name in _SECTIONS if name in sections}, sort_keys=True)}


def _nearest_lora(state: AdapterState, base: Base, rule: RankRule) -> AdapterState:
    """A LoRA is as near to itself as can be, whatever the ranks' default."""
    if state.kind == "lora" and rule == rule_of(Ranks()):
        return state
    weights = weights_for(state, base, "A plain LoRA") if needs_base(state) else {}
    lora, fits = plain_lora(state, weights, rule)
    logger.warning("%s", "; ".join(told(fits, rule)))
    return lora


def check_output(output: Path, format_: Format) -> None:
    """Raises: ConfigError: the output is not what the format writes."""
    if format_.suffix and output.suffix != format_.suffix:
        raise ConfigError(f"The output is a {format_.suffix} file, got {output}.")
    if not format_.suffix and output.suffix:
        raise ConfigError(f"The output of {format_.name} is a folder, without an ending; got {output}.")
