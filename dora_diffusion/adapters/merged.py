"""Merging into plain models: no wrapper, no trace, no overhead."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dora_diffusion.adapters.state import AdapterState
from dora_diffusion.registry import ADAPTERS


@torch.no_grad()
def merged_weights(
    state: AdapterState, bases: dict[str, Tensor], strength: float = 1.0
) -> Iterator[tuple[str, Tensor]]:
    """Yield (layer name, merged weight) in float32, one at a time, computed from the base weights given.

    Args:
        bases: the untouched base weight of every layer of ``state``; any precision, any device.
    """
    variant = ADAPTERS.load(state.kind)
    for name, layer in state.layers.items():
        weight = bases[name]
        magnitude = None if layer.magnitude is None else layer.magnitude.to(weight.device)
        A, B = layer.A.to(weight.device), layer.B.to(weight.device)
        yield name, variant.merged_weight(weight, A, B, magnitude, layer.scale, strength)
