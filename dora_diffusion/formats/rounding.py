"""An adapter in the precision of a file.

Factors are rounded, magnitudes are not: they multiply the whole base weight, where half a percent is seen. What is
derived from the factors (norms, compensated scales) is derived from the rounded ones, so that a reader's arithmetic
meets its own numbers.
"""

from dataclasses import replace

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.errors import FormatError
from dora_diffusion.formats.format import Precision

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# ``||W'_file - W'|| / ||W' - W0||`` of a layer at most: a rounding of each factor, half a unit in the last place
# (2^-11, 2^-8), were all of them as large as can be; a third of it is met. fp32: what sums of norms
# leave.
BOUNDS: dict[str, float] = {"fp32": 1e-4, "fp16": 2**-10, "bf16": 2**-7}


def round_to(tensor: Tensor, precision: Precision, name: str) -> Tensor:
    """``tensor`` in the file's precision.

    Raises:
        FormatError: its values are too large for fp16, or so small that fp16 rounds them away.
    """
    rounded = tensor.to(DTYPES[precision])
    if rounded.dtype == tensor.dtype:
        return rounded
    off, unit = torch.linalg.vector_norm(rounded.float() - tensor), torch.finfo(rounded.dtype).eps / 2
    if not bool(off <= unit * torch.linalg.vector_norm(tensor)):
        raise FormatError(
            f"{name} has values of up to {tensor.abs().max():.3g}, which {precision} cannot hold: its largest is "
            f"{torch.finfo(rounded.dtype).max:.5g}, and what is far below {torch.finfo(rounded.dtype).tiny:.1g} is "
            "rounded away. Export with --precision bf16 or fp32."
        )
    return rounded


def rounded(state: AdapterState, precision: Precision) -> AdapterState:
    """``state`` with every factor rounded as in a file, still float32.

    Raises:
        FormatError: fp16 cannot hold a layer.
    """
    if precision == "fp32":
        return state
    return replace(state, layers={name: _rounded(name, layer, precision) for name, layer in state.layers.items()})


def _rounded(name: str, layer: LayerState, precision: Precision) -> LayerState:
    return replace(layer, A=round_to(layer.A, precision, name).float(), B=round_to(layer.B, precision, name).float())


def folded(state: AdapterState) -> AdapterState:
    """``state`` with alpha / rank multiplied into ``B``: for readers that find no alpha."""
    return replace(
        state,
        layers={name: replace(layer, B=layer.B * layer.scale, scale=1.0) for name, layer in state.layers.items()},
    )
