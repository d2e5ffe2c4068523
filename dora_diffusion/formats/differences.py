"""Full differences ``W' - W0`` as layers of an adapter, and back."""

import torch
from torch import Tensor

from dora_diffusion.adapters import LayerState


def full_rank(difference: Tensor) -> LayerState:
    """A difference (out, ...) as a LoRA layer of full rank: one factor is the difference, the other the identity.

    Exact to the bit: a product with the identity adds nothing but zeros.
    """
    flat = difference.float().flatten(1)
    rows, columns = flat.shape
    if rows <= columns:
        return LayerState(flat, torch.eye(rows), 1.0, None, tuple(difference.shape))
    return LayerState(torch.eye(columns), flat, 1.0, None, tuple(difference.shape))
