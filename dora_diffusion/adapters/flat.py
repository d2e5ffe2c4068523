"""All parameters of one kind in one buffer.

An optimizer over three buffers launches a handful of kernels instead of hundreds, a gradient norm is one reduction, and
processes exchange one tensor. Every layer's ``A``, ``B`` and magnitude is a leaf parameter that shares its storage, and
its gradient's, with the buffer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatBuffer:
    """``parameter (n,)`` float32 with a permanent gradient buffer, seen through views of any shapes.

    Args:
        component: the model it belongs to ("unet").
        role: "A", "B", "magnitude" or "tokens".
        shapes: of the views, in the order they lie in the buffer.
    """

    def __init__(self, component: str, role: str, shapes: Sequence[tuple[int, ...]], device: torch.device):
        self.component = component
        self.role = role
        self.shapes = list(shapes)
        size = sum(_numel(shape) for shape in shapes)
        self.parameter = nn.Parameter(torch.zeros(size, device=device))
        self.parameter.grad = torch.zeros_like(self.parameter)

    @property
    def name(self) -> str:
        """Its name in a file: "unet.A"."""
        return f"{self.component}.{self.role}"

    def data_views(self) -> list[Tensor]:
        """Views of the values, without a gradient of their own."""
        return self._views(self.parameter.detach())

    def grad_views(self) -> list[Tensor]:
        """Views of the gradient."""
        if self.parameter.grad is None:
            raise RuntimeError(
                "the gradient buffer of a flat parameter was set to None; use zero_grad(set_to_none=False)"
            )
        return self._views(self.parameter.grad)

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([_numel(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def move(self, device: torch.device) -> None:
        """Move values and gradient; views must be taken afresh."""
        gradient = self.parameter.grad
        self.parameter.grad = None
        self.parameter.data = self.parameter.data.to(device)
        self.parameter.grad = None if gradient is None else gradient.to(device)


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
