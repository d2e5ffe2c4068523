"""Which programs load a file right, told from its tensors' names and shapes.

What each does is in the sources of diffusers 0.42, transformers 5, ComfyUI of 2025-10, Forge of 2025-06, A1111 and
LyCORIS 4.1; ``verify`` proves it in numbers. Strength 1 is meant: other strengths are another thing in each.
"""

from collections.abc import Mapping
from enum import Enum

from torch import Tensor

RIGHT = "right"
_SCALE, _MAGNITUDE = ".dora_scale", ".lora_magnitude_vector"


class Layout(Enum):
    """How a file names its tensors."""

    DOTTED = "diffusers"
    KOHYA = "kohya"
    OLD_DOTTED = "old diffusers"
    DIFFERENCE = "full differences"
    UNKNOWN = "unknown"


class Axis(Enum):
    """Along what a DoRA's norms run."""

    ROWS = "one norm per output row"
    COLUMNS = "one norm per input column"
    UNTOLD = "norms without an axis (1-D)"


_ROWS_IN_COMFYUI = "wrong: it divides by the norm of the base instead of that of the sum; export --format comfyui"
_STRAYS = 12  # keys that match nothing, up to which Forge loads a file
_DROPS = "as a plain LoRA: it drops dora_scale with a warning"
_NOT_READ = "not read"


def layout_of(keys: Mapping[str, Tensor]) -> Layout:
    """How the tensors are named."""
    if any(key.endswith(".diff") for key in keys):
        return Layout.DIFFERENCE
    if any(key.startswith(("lora_unet_", "lora_te")) for key in keys):
        return Layout.KOHYA
    if any(".processor." in key or ".lora.down." in key for key in keys):
        return Layout.OLD_DOTTED
    return Layout.DOTTED if any(".lora_A." in key for key in keys) else Layout.UNKNOWN


def axis_of(tensors: Mapping[str, Tensor]) -> Axis | None:
    """Along what the norms run, by shape alone; None for a file without any. Square or not, ``(out, 1)`` are rows."""
    scales = [tensor for key, tensor in tensors.items() if key.endswith(_SCALE)]
    if not scales:
        return Axis.ROWS if any(_MAGNITUDE in key for key in tensors) else None
    if any(scale.ndim < 2 for scale in scales):
        return Axis.UNTOLD
    return Axis.ROWS if all(scale.shape[0] == scale.numel() for scale in scales) else Axis.COLUMNS


def readers(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, str]:
    """What each program makes of a file: "right", or what is wrong and what to do."""
    layout, axis = layout_of(tensors), axis_of(tensors)
    if layout is Layout.UNKNOWN:
        return {}
    both = axis is not None and any(key.endswith(_SCALE) for key in tensors) and any(_MAGNITUDE in k for k in tensors)
    for_comfyui = both or header.get("dora_diffusion.dora_norm") == "base"
    comfyui = _comfyui(layout, axis, tensors, for_comfyui)
    return {
        "diffusers": _diffusers(layout, axis, tensors, both),
        "ComfyUI": comfyui,
        "Forge": _forge(comfyui, tensors, both),
        "A1111": _a1111(layout, axis),
        "LyCORIS, sd-scripts": _lycoris(layout, axis, for_comfyui),
    }


def _diffusers(layout: Layout, axis: Axis | None, tensors: Mapping[str, Tensor], both: bool) -> str:
    if layout is Layout.DIFFERENCE:
        return _NOT_READ
    if layout is Layout.KOHYA and axis is not None:
        return _DROPS
    bare = [key for key in tensors if key.startswith("text_encoder") and key.endswith(_MAGNITUDE)]
    if bare:
        return (
            f"wrong with transformers 5: it loses the text encoder's magnitudes, whose names lack .weight ({bare[0]})"
        )
    return RIGHT if axis is None or both or layout is Layout.DOTTED else _DROPS


def _comfyui(layout: Layout, axis: Axis | None, tensors: Mapping[str, Tensor], for_comfyui: bool) -> str:
    if layout is Layout.DOTTED and any(".attn1." in key or ".attn2." in key for key in tensors):
        return "wrong: it finds no attention layer under these names; export --format comfyui"
    if layout is Layout.DOTTED and axis is not None and not for_comfyui:
        return "wrong: it reads no magnitudes of this spelling; export --format comfyui"
    if axis is Axis.UNTOLD:
        return "wrong: it takes norms without an axis for another one on square layers and skips the others"
    return RIGHT if axis is not Axis.ROWS or for_comfyui else _ROWS_IN_COMFYUI


def _forge(comfyui: str, tensors: Mapping[str, Tensor], both: bool) -> str:
    """ComfyUI's arithmetic, but a file with many keys that match nothing is another model's to it."""
    strays = sum(_MAGNITUDE in key for key in tensors)
    if both and strays > _STRAYS:
        return f"not loaded: {strays} keys that only diffusers reads match nothing there; export --format comfyui"
    return comfyui


def _a1111(layout: Layout, axis: Axis | None) -> str:
    if layout not in (Layout.KOHYA, Layout.DIFFERENCE):
        return "not read under these names; export --format lora"
    if axis in (None, Axis.COLUMNS):
        return RIGHT
    return "wrong: it knows norms per input column alone; export --format lora"


def _lycoris(layout: Layout, axis: Axis | None, for_comfyui: bool) -> str:
    if layout not in (Layout.KOHYA, Layout.DIFFERENCE):
        return "not read under these names; export --format kohya"
    if axis is Axis.COLUMNS:
        return "not loaded: its loader expects one norm per output row"
    if axis is Axis.UNTOLD:
        return "not loaded: its norms have no axis"
    return "wrong: the file is made for ComfyUI's norm; export --format kohya" if axis and for_comfyui else RIGHT
