"""Layers of one shape, stacked: their parameters, their frozen weights and the tensors their forward reads.

``||V||`` costs a dozen small kernels a layer; stacked, it costs that many for a whole group. SD 1.5 has 128 attention
layers in six groups, SDXL 560 in four.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dora_diffusion.adapters.operators import Operator, matmul_fp32
from dora_diffusion.adapters.variant import Variant


@dataclass(eq=False)
class Slot:
    """One adapted layer's share of its group.

    ``A (rank, in_flat)``, ``B (out, rank)``, ``magnitude (out,)``: float32 parameters.
    """

    name: str
    module: nn.Module
    op: Operator
    scale: float
    A: nn.Parameter = field(init=False)
    B: nn.Parameter = field(init=False)
    magnitude: nn.Parameter = field(init=False)
    gain: Tensor = field(init=False)
    offset: Tensor = field(init=False)
    update_gain: Tensor = field(init=False)
    inverse_magnitude: Tensor = field(init=False)
    _down: Tensor = field(init=False)
    _up: Tensor = field(init=False)
    prepared_for: tuple[Any, ...] = ()

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``A`` and the ready ``up`` factor in ``dtype`` (autocast may ask for another one than the base's)."""
        return self._down.to(dtype), self._up.to(dtype)

    @property
    def weight(self) -> Tensor:
        return self.module.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return self.module.bias  # type: ignore[return-value]

    def weight_signature(self) -> tuple[Any, ...]:
        """Changes whenever the frozen weight is moved, cast, replaced or written to."""
        weight = self.weight
        return weight.data_ptr(), weight._version, weight.dtype


class Group:
    """The stacked tensors of layers that share weight shape, rank, scale and dtype.

    ``A (L, r, i)``, ``B (L, o, r)``, ``magnitude (L, o)`` and their gradients are views of the adapter's flat buffers.
    Made by ``prepare`` and read by the layers: ``gain``, ``offset``, ``update_gain = scale * gain`` and
    ``inverse_magnitude``, each (L, o) in float32; ``down (L, r, i)`` and ``up (L, o, r)`` in the base's precision.
    """

    A: Tensor
    B: Tensor
    magnitude: Tensor
    A_grad: Tensor
    B_grad: Tensor
    magnitude_grad: Tensor

    def __init__(self, slots: list[Slot], rank: int, scale: float, variant: Variant, norm_grad_full: bool):
        self.slots = slots
        self.rank = rank
        self.scale = scale
        self.variant = variant
        self.norm_grad_full = norm_grad_full
        self.rows = slots[0].weight.shape[0]
        self.columns = slots[0].weight[0].numel()
        self._norm: Tensor | None = None
        self._base: Tensor | None = None
        self._signature: list[tuple[Any, ...]] = []

    def is_current(self) -> bool:
        """Whether the frozen weights are still the ones the caches were made from."""
        return self._signature == [slot.weight_signature() for slot in self.slots]

    def adopt_base(self) -> bool:
        """Stack the frozen weights, measure their row norms, and carry the magnitudes over to them.

        An untouched magnitude becomes the new row norm exactly, so that the adapted model stays the base bit for bit; a
        trained one keeps ``m / ||W0||``. The modules' weights become views of the stack: nothing is kept twice.

        Returns:
            Whether a trained magnitude was rescaled to a base that differs.
        """
        weights = [slot.weight for slot in self.slots]
        base = torch.stack([weight.detach().flatten(1) for weight in weights])
        for weight, share in zip(weights, base, strict=True):
            weight.data = share.view(weight.shape)
        self._base = base
        self._signature = [slot.weight_signature() for slot in self.slots]
        norm = torch.stack([torch.linalg.vector_norm(share.double(), dim=1).float() for share in base])
        rescaled = self._carry_magnitudes(norm)
        self._norm, self.base_square = norm, norm.square()
        self._allocate()
        return rescaled

    def _carry_magnitudes(self, norm: Tensor) -> bool:
        if not self.variant.has_magnitude:
            return False
        old = self._norm
        with torch.no_grad():
            if old is None:
                self.magnitude.copy_(norm)
                return False
            old = old.to(norm.device)
            untouched = self.magnitude == old
            ratio = torch.where(old > 0, norm / old, torch.ones_like(norm))
            self.magnitude.copy_(torch.where(untouched, norm, self.magnitude * ratio))
            return bool((~untouched & (norm != old)).any())

    def _allocate(self) -> None:
        """Make the ready tensors once and hand every slot its views; ``prepare`` only writes into them."""
        base, layers = self.stacked_base(), len(self.slots)
        biases = [slot.bias for slot in self.slots]
        present = [bias.detach().float() for bias in biases if bias is not None]
        self.bias = torch.stack(present) if present else None
        self.down = self.A if base.dtype == torch.float32 else torch.empty_like(self.A, dtype=base.dtype)
        self.up = torch.empty(layers, self.rows, self.rank, dtype=base.dtype, device=base.device)
        vectors = torch.ones(4, layers, self.rows, device=base.device)
        self.gain, self.offset, self.update_gain, self.inverse_magnitude = vectors
        for k, slot in enumerate(self.slots):
            slot._down, slot._up = self.down[k].detach(), self.up[k]
            slot.gain, slot.offset = self.gain[k], self.offset[k]
            slot.update_gain, slot.inverse_magnitude = self.update_gain[k], self.inverse_magnitude[k]

    @property
    def base_norm(self) -> Tensor:
        """``||W0||`` per row, (L, o), float32."""
        if self._norm is None:
            raise RuntimeError("adopt_base() has not run")
        return self._norm

    def stacked_base(self) -> Tensor:
        """The frozen weights, (L, o, i), in the base's precision."""
        if self._base is None:
            raise RuntimeError("adopt_base() has not run")
        return self._base

    def cast_down(self) -> None:
        """Bring ``A`` to the base's precision where that differs."""
        if self.down.dtype != torch.float32:
            self.down.copy_(self.A)

    def base_times_down(self) -> Tensor:
        """``W0 A^T`` (L, o, r) in float32.

        A half-precision base meets ``A`` as the sum of two halves: 16 bits instead of 8.
        """
        base, A = self.stacked_base(), self.A
        if base.dtype == torch.float32 or not base.is_cuda:
            return base.float() @ A.mT
        high = A.to(base.dtype)
        low = (A - high.float()).to(base.dtype)
        product = matmul_fp32(base, torch.cat([high, low], dim=1).mT)
        return product[..., : self.rank] + product[..., self.rank :]

    def row_norms(self) -> Tensor:
        """``c = ||W0 + scale * B A||`` per row, (L, o), float32, without forming ``B A``:

        ``c^2 = ||W0||^2 + 2 scale <B, W0 A^T> + scale^2 <B, B (A A^T)>`` (arXiv:2603.22276, eq. 3).
        """
        with full_precision():
            gram = torch.bmm(self.A, self.A.mT)
            inner = torch.baddbmm(self.base_times_down(), self.B, gram, beta=2.0, alpha=self.scale)
            return (self.B * inner).sum(-1).mul_(self.scale).add_(self.base_square).clamp_min_(0).sqrt_()


@contextmanager
def full_precision() -> Iterator[None]:
    """TF32 would cost the norms three digits; switch it off around them."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
