"""Who reads a file right, a line a reader: what ``inspect`` says of it."""

from dora_diffusion.adapters import AdapterState
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats import kohya_file
from dora_diffusion.formats.format import Base
from dora_diffusion.formats.verify.against import judged
from dora_diffusion.formats.verify.compare import Verification
from dora_diffusion.formats.verify.promises import format_for
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights
from dora_diffusion.formats.verify.report import is_untouched
from dora_diffusion.formats.verify.stand_in import stand_in
from dora_diffusion.registry import READERS

RIGHT = "right"


def answers(file: AdapterFile, state: AdapterState, base: Base | None, *, made_for_base: bool) -> dict[str, str]:
    """What each program makes of ``file``: "right", or what is wrong and what to export instead.

    Args:
        state: the adapter in the file.
        base: has all its layers; None judges on a stand-in, without figures.
        made_for_base: the file's numbers are right on one base alone, so that a stand-in does not tell.
    """
    weights = stand_in(state) if base is None else BaseWeights(base.family, base.weights)
    tells_figures, is_certain = base is not None, base is not None or not made_for_base
    return {
        one.reader: _answer(one, _instead(one, state, base, weights), tells_figures, is_certain)
        for one in judged(file, state, weights)
    }


def _instead(one: Verification, state: AdapterState, base: Base | None, weights: BaseWeights) -> str:
    """What to export for a reader; a plain LoRA gains nothing by being made one again."""
    better = format_for(one.reader)
    if better != "lora":
        return f"; export --format {better}"
    if state.kind == "lora":
        return ""
    lost = _lost_as_lora(one.reader, state, base, weights)
    if not lost:
        return "; export --format lora"
    return f"; --format lora would not be right there either: {lost} of {len(state.layers)} layers would not be found"


def _lost_as_lora(reader: str, state: AdapterState, base: Base | None, weights: BaseWeights) -> int:
    """How many layers a reader would miss or take for others in a plain LoRA of them, by its names alone."""
    try:
        layout = kohya_file.layout(state, base, weights.family)
    except ConfigError:
        return 0  # what is taken for granted of a base that is not here: the published size
    spelled = kohya_file.spellings(state, weights.family, layout)
    file = AdapterFile(kohya_file.factor_tensors(state, spelled, "fp32"))
    found = READERS.load(reader).find(file, weights).layers
    return sum(
        name not in found or not all(key.startswith(f"{spelled[name]}.") for key in found[name].keys)
        for name in spelled
    )


def _answer(one: Verification, instead: str, tells_figures: bool, is_certain: bool) -> str:
    if one.is_right:
        return RIGHT
    if one.refusal:
        return f"loads nothing: {one.refusal}{instead}"
    if is_untouched(one):
        return f"reads nothing of it: its names are not known there{instead}"
    if not is_certain:
        return "cannot be told without its base, for which the file was made"
    figure = f", by up to {100 * one.worst_of_change:.2g} % of a layer's change" if tells_figures else ""
    why = f" ({'; '.join(one.remarks)})" if one.remarks else ""
    return f"wrong in {len(one.wrong)} of {len(one.layers)} layers{figure}{why}{instead}"
