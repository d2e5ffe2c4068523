"""How a file names its tensors, and along what a DoRA's norms run: told from keys and shapes, for people."""

from collections.abc import Iterable, Mapping
from enum import Enum

from torch import Tensor

_SCALE, _MAGNITUDE = ".dora_scale", ".lora_magnitude_vector"


class Layout(Enum):
    """The layouts that are met, by what ``inspect`` calls them."""

    DIFFUSERS = "diffusers"
    PROCESSORS = "old diffusers, with attention processors (.processor.to_q_lora.down)"
    OLD_DOTTED = "old diffusers (.to_q.lora.down)"
    DUAL = "dual: old diffusers, with norms for diffusers and for ComfyUI"
    PEFT = "PEFT's folders, one a component"
    KOHYA = "kohya"
    COMPENSATED = "kohya, with norms for ComfyUI and Forge"
    DOTTED_KOHYA = "kohya's parts under dotted names (OneTrainer)"
    DIFFERENCE = "full differences"


class Axis(Enum):
    """Along what a DoRA's norms run."""

    ROWS = "one norm per output row"
    COLUMNS = "one norm per input column"


# By format, the first whose mark is in a key; the last one has none.
_LAYOUTS: dict[str, tuple[tuple[str, Layout], ...]] = {
    "diffusers": (
        (".processor.", Layout.PROCESSORS),
        (".lora.down.", Layout.OLD_DOTTED),
        (".lora_linear_layer.", Layout.OLD_DOTTED),
        ("", Layout.DIFFUSERS),
    ),
    "peft": (("", Layout.PEFT),),
    "kohya": (("lora_unet_", Layout.KOHYA), ("lora_te", Layout.KOHYA), ("", Layout.DOTTED_KOHYA)),
    "comfyui": (("", Layout.COMPENSATED),),
    "dual": (("", Layout.DUAL),),
    "diff": (("", Layout.DIFFERENCE),),
}


def layout_of(format_name: str, keys: Iterable[str]) -> Layout:
    """How the tensors of a file are named that the format called ``format_name`` recognises."""
    keys = list(keys)
    return next(layout for mark, layout in _LAYOUTS[format_name] if any(mark in key for key in keys))


def axis_of(tensors: Mapping[str, Tensor]) -> Axis | None:
    """Along what the norms run, by shape alone; None for a file without any. Square or not, ``(out, 1)`` are rows."""
    scales = [tensor for key, tensor in tensors.items() if key.endswith(_SCALE)]
    if not scales:
        return Axis.ROWS if any(_MAGNITUDE in key or key.endswith(".magnitude") for key in tensors) else None
    return Axis.ROWS if all(scale.shape[0] == scale.numel() for scale in scales) else Axis.COLUMNS
