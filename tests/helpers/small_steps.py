"""A small adapter and gradients for it, for tests of what a step does."""

import torch
from bases import adapt
from torch import Tensor, nn

from dora_diffusion.adapters import Adapter


def small_adapter() -> Adapter:
    """Two layers of a few numbers."""
    torch.manual_seed(0)
    return adapt(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)), rank=2)


def with_gradients(adapter: Adapter, seed: int = 1) -> Adapter:
    """Gradients that the seed alone decides."""
    generator = torch.Generator().manual_seed(seed)
    for buffer in adapter.buffers:
        assert buffer.parameter.grad is not None
        buffer.parameter.grad.normal_(generator=generator)
    return adapter


def values(adapter: Adapter) -> dict[str, Tensor]:
    """Copies of the buffers by role."""
    return {buffer.role: buffer.parameter.detach().clone() for buffer in adapter.buffers}
