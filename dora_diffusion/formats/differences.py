"""Full differences ``W' - W0`` as layers of an adapter."""

from torch import Tensor

from dora_diffusion.adapters import LayerState
from dora_diffusion.adapters.lowrank import whole


def full_rank(difference: Tensor) -> LayerState:
    """A difference (out, ...) as a LoRA layer of full rank: one factor is the difference, the other the identity."""
    A, B, _ = whole(difference.float().flatten(1))
    return LayerState(A, B, 1.0, None, tuple(difference.shape))
