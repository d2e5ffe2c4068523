"""The two linear maps an adapter can sit on, each told as five small functions on plain tensors.

A weight is ``W (out, in)`` or ``(out, in/groups, kh, kw)``; its update is ``scale * B @ A`` reshaped to ``W``, so that
one pair of factors ``A (rank, in_flat)``, ``B (out, rank)`` serves both. ``in_flat`` counts everything but the first
axis of ``W``.

``down`` and ``up`` apply ``A`` and ``B`` without ever forming ``B @ A``; the ``*_gradient`` functions are their
adjoints.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dora_diffusion.errors import AdapterError


class Operator(Protocol):
    """What an adapter needs to know about the layer it sits on."""

    def base(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The frozen layer's own output, by the very call the layer makes."""

    def down(self, x: Tensor, A: Tensor) -> Tensor:
        """``h = A x``, the low-rank activation."""

    def add_up(self, y: Tensor, h: Tensor, B: Tensor) -> Tensor:
        """``y + B h``, in place where the library allows."""

    def rows(self, v: Tensor) -> Tensor:
        """A per-output-row vector ``(out,)`` shaped to multiply an output."""

    def row_sums(self, y: Tensor) -> Tensor:
        """The sum of an output over everything but its rows, ``(out,)``, in float32."""

    def up_gradients(self, dy: Tensor, h: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """From ``dy``: the gradients of ``h`` and of ``B`` (float32, ``(out, rank)``)."""

    def down_gradient(self, dh: Tensor, x: Tensor, A: Tensor) -> Tensor:
        """From ``dh``: the gradient of ``A`` (float32, ``(rank, in_flat)``)."""

    def input_gradient(self, dy: Tensor, dh: Tensor, x: Tensor, weight: Tensor, A: Tensor) -> Tensor:
        """The gradient of ``x`` through the frozen weight (``dy``, already scaled by row) and ``A`` (``dh``)."""


def matmul_fp32(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` (2-D or 3-D), accumulated and returned in float32 without a rounded copy in between."""
    if left.dtype == torch.float32:
        return left @ right
    if left.is_cuda:
        product = torch.mm if left.ndim == 2 else torch.bmm
        return product(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


class LinearOperator:
    """``nn.Linear``: x ``(..., in)`` to ``(..., out)``; works on ``(tokens, features)``."""

    def base(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def down(self, x: Tensor, A: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1]) @ A.t()

    def add_up(self, y: Tensor, h: Tensor, B: Tensor) -> Tensor:
        y.view(-1, y.shape[-1]).addmm_(h, B.t())
        return y

    def rows(self, v: Tensor) -> Tensor:
        return v

    def row_sums(self, y: Tensor) -> Tensor:
        return y.reshape(-1, y.shape[-1]).sum(0, dtype=torch.float32)

    def up_gradients(self, dy: Tensor, h: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        tokens = dy.reshape(-1, dy.shape[-1])
        return tokens @ B, matmul_fp32(tokens.t(), h)

    def down_gradient(self, dh: Tensor, x: Tensor, A: Tensor) -> Tensor:
        return matmul_fp32(dh.t(), x.reshape(-1, x.shape[-1]))

    def input_gradient(self, dy: Tensor, dh: Tensor, x: Tensor, weight: Tensor, A: Tensor) -> Tensor:
        return (dy.reshape(-1, dy.shape[-1]) @ weight).addmm_(dh, A).view(x.shape)


@dataclass(frozen=True)
class ConvOperator:
    """``nn.Conv2d``: any kernel, stride, padding, dilation and groups; zero padding only.

    With groups every group applies the same ``A`` to its own channels, and the ``B`` of its own rows: the convolution
    by ``(B @ A).view_as(W)``, which is what is merged.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def base(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _kernel(self, A: Tensor) -> Tensor:
        """``A`` as a convolution weight, once for every group: (groups * rank, in / groups, kh, kw)."""
        return A.view(A.shape[0], -1, *self.kernel_size).repeat(self.groups, 1, 1, 1)

    def down(self, x: Tensor, A: Tensor) -> Tensor:
        return F.conv2d(x, self._kernel(A), None, self.stride, self.padding, self.dilation, self.groups)

    def add_up(self, y: Tensor, h: Tensor, B: Tensor) -> Tensor:
        return y.add_(F.conv2d(h, B[:, :, None, None], groups=self.groups))

    def rows(self, v: Tensor) -> Tensor:
        return v[:, None, None]

    def row_sums(self, y: Tensor) -> Tensor:
        return y.sum((0, 2, 3), dtype=torch.float32)

    def up_gradients(self, dy: Tensor, h: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        pointwise = ConvOperator((1, 1), (1, 1), (0, 0), (1, 1), self.groups)
        dh, dB = pointwise._adjoint(dy, h, B[:, :, None, None], wants=(True, True))
        return dh, dB.flatten(1).float()

    def down_gradient(self, dh: Tensor, x: Tensor, A: Tensor) -> Tensor:
        _, dA = self._adjoint(dh, x, self._kernel(A), wants=(False, True))
        return dA.float().view(self.groups, *A.shape).sum(0)

    def input_gradient(self, dy: Tensor, dh: Tensor, x: Tensor, weight: Tensor, A: Tensor) -> Tensor:
        dx, _ = self._adjoint(dy, x, weight, wants=(True, False))
        return dx.add_(self._adjoint(dh, x, self._kernel(A), wants=(True, False))[0])

    def _adjoint(self, dy: Tensor, x: Tensor, weight: Tensor, wants: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            dy, x, weight, None, self.stride, self.padding, self.dilation, False, [0, 0], self.groups, [*wants, False]
        )
        return dx, dweight


def operator_for(module: nn.Module, name: str) -> Operator:
    """The operator of an ``nn.Linear`` or ``nn.Conv2d``.

    Raises:
        AdapterError: another kind of layer, or a convolution that pads with anything but zeros.
    """
    if isinstance(module, nn.Linear):
        return LinearOperator()
    if not isinstance(module, nn.Conv2d):
        raise AdapterError(f"{name}: adapters sit on Linear and Conv2d layers, got {type(module).__name__}.")
    if module.padding_mode != "zeros":
        raise AdapterError(f"{name}: only zero padding is supported, got padding_mode={module.padding_mode!r}.")
    padding = module.padding
    if isinstance(padding, str):
        padding = tuple(
            d * (k - 1) // 2 if padding == "same" else 0
            for d, k in zip(module.dilation, module.kernel_size, strict=True)
        )
    return ConvOperator(module.kernel_size, module.stride, tuple(padding), module.dilation, module.groups)
