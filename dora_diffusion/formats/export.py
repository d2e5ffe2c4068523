"""``export(config)``: an adapter as another program reads it, proved by that program's rules before it has its name."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.changes import needs_base
from dora_diffusion.adapters.lowrank import RankRule
from dora_diffusion.adapters.plain_lora import plain_lora
from dora_diffusion.config import ExportConfig
from dora_diffusion.config.files import read_yaml
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.adapters_on_disk import SETTINGS_NAME, WEIGHTS_NAME, load_adapter
from dora_diffusion.formats.approximation import rule_of, told
from dora_diffusion.formats.base_weights import BaseByName, weights_for
from dora_diffusion.formats.earlier import check_replaceable
from dora_diffusion.formats.format import Base, Format, Precision
from dora_diffusion.formats.rounding import BOUNDS
from dora_diffusion.formats.verify import Verification, write_proved
from dora_diffusion.formats.words import lay_beside
from dora_diffusion.registry import FORMATS

logger = logging.getLogger(__name__)

OnProved = Callable[[list[Verification]], None]

_SECTIONS = ("adapter", "loss", "optim")  # what training was; the others tell of folders on one machine


def export(config: ExportConfig, on_proved: OnProved | None = None) -> Path:
    """Write an adapter as another program reads it; its base is opened to prove that.

    Args:
        on_proved: told what each reader that the format is for makes of the file.

    Raises:
        ConfigError: no adapter was given, the output is not what the format writes or is there and is no export of
            ours, or its base is not known.
        FormatError, AdapterError, ModelError, MachineError: adapter or base cannot be read or do not fit, a reader
            would make other weights of the file, or it cannot be written.
    """
    if config.adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    check_output(config.output, FORMATS.load(config.format), [config.adapter])
    given = config.pretrained_model_name_or_path
    base = BaseByName(given) if given else None
    state = load_adapter(config.adapter, base)
    state = replace(state, metadata=state.metadata | _settings(config.adapter))
    base = base or BaseByName(state.base_name)
    if config.format == "lora":
        state = _nearest_lora(state, base, rule_of(config))
    found = save(state, config.format, config.output, base, config.precision)
    if on_proved is not None:
        on_proved(found)
    return config.output


def save(
    state: AdapterState, format_name: str, output: Path, base: Base, precision: Precision = "fp32"
) -> list[Verification]:
    """Write ``state``, prove the file, lay a word that it has no place for beside it, and say what was rounded.

    Raises:
        as ``write_proved``.
    """
    format_: Format = FORMATS.load(format_name)
    found = write_proved(format_, state, output, base, precision)
    if state.word is not None and format_name != "diffusers":
        lay_beside(state.word, output, is_inside=format_.carries_words)
    if precision != "fp32":
        logger.warning("In %s a layer's change may be off by %.2g %% of itself.", precision, 100 * BOUNDS[precision])
    return found


def _settings(adapter: Path) -> dict[str, str]:
    """How the run in a folder was trained, for the header of a file that leaves it."""
    file = adapter / SETTINGS_NAME
    if not file.is_file():
        return {}
    sections = read_yaml(file)
    return {"settings": json.dumps({name: sections[name] for name in _SECTIONS if name in sections}, sort_keys=True)}


def _nearest_lora(state: AdapterState, base: Base, rule: RankRule) -> AdapterState:
    """A LoRA of no higher rank than is asked for is as near to itself as can be."""
    if is_within(state, rule):
        return state
    weights = weights_for(state, base, "A plain LoRA") if needs_base(state) else {}
    lora, fits = plain_lora(state, weights, rule)
    logger.warning("%s", "; ".join(told(fits, rule)))
    return lora


def is_within(state: AdapterState, rule: RankRule) -> bool:
    """Whether a LoRA has the ranks asked for already, where nothing finer was asked."""
    small = all(layer.rank <= rule.rank for layer in state.layers.values())
    return state.kind == "lora" and small and rule == RankRule(rule.rank)


def check_output(output: Path, format_: Format, adapters: Sequence[Path] = ()) -> None:
    """Before anything is computed.

    Raises:
        ConfigError: the output is not what the format writes, is one of the ``adapters`` it is made from, or is there
            and is no export of ours.
    """
    sources = {path.resolve() for path in adapters} | {(path / WEIGHTS_NAME).resolve() for path in adapters}
    if output.resolve() in sources:
        raise ConfigError(f"{output} is the adapter itself, which would be gone; give another --output.")
    if format_.suffix and output.suffix != format_.suffix:
        raise ConfigError(f"The output is a {format_.suffix} file, got {output}.")
    if not format_.suffix and output.suffix:
        raise ConfigError(f"The output of {format_.name} is a folder, without an ending; got {output}.")
    check_replaceable(output)
