"""DoRA (arXiv:2402.09353): ``W' = m * V / ||V||`` with ``V = W0 + scale * B A``.

There is one norm per output row; the bias is never scaled.

The norm ``c = ||V||`` depends on parameters alone, so it is computed once an optimizer step, for all layers of a shape
together (``Group.row_norms``), and the forward reads the gain ``g = m / c``. With the frozen layer's own output
``z = W0 x + b`` it is

    y = g * z + (1 - g) * b + (scale * g * B) (A x)

which at ``g = 1, B = 0`` is ``z`` bit for bit, in every precision.
"""

from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters.group import Group, Slot
from dora_diffusion.adapters.operators import Operator


def _compose(op: Operator, slot: Slot, z: Tensor, h: Tensor, up: Tensor, bias: Tensor | None) -> Tensor:
    """``g * z + (1 - g) * b + up h``, overwriting ``z``; the gain stays float32 and is rounded once."""
    gain = op.rows(slot.gain)
    if bias is None:
        z.mul_(gain)
    else:
        torch.addcmul(op.rows(slot.offset), z, gain, out=z)
    return op.add_up(z, h, up)


class DoRAFunction(torch.autograd.Function):
    """The adapted layer, the norm held constant (section 4.3 of the paper).

    Keeps ``x``, ``h = A x`` and the output ``y``, which the next operation keeps anyway in most places. With
    ``u = V x``:

        dm = sum(dy * u) / c = sum(dy * (y - b)) / m        (eq. 7)
        dB = scale * g * (dy^T h)
        dA = (up^T dy) x
        dx = W0^T (g dy) + A^T (up^T dy)
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        A: Tensor,
        B: Tensor,
        magnitude: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        slot: Slot,
        op: Operator,
    ) -> Tensor:
        down, up = slot.factors(x.dtype)
        h = op.down(x, down)
        y = _compose(op, slot, op.base(x, weight, bias), h, up, bias)
        ctx.save_for_backward(x, h, y, weight, bias, down, up, slot.gain, slot.update_gain, slot.inverse_magnitude)
        ctx.op = op
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, h, y, weight, bias, down, up, gain, update_gain, inverse_magnitude = ctx.saved_tensors
        op: Operator = ctx.op
        unscaled = y if bias is None else y - op.rows(bias)
        dm = op.row_sums(dy * unscaled).mul_(inverse_magnitude)
        dh, dB = op.up_gradients(dy, h, up)
        dB.mul_(update_gain[:, None])
        dx = None
        if ctx.needs_input_grad[0]:
            through_base = torch.mul(dy, op.rows(gain), out=torch.empty_like(dy))
            dx = op.input_gradient(through_base, dh, x, weight, down)
        return dx, op.down_gradient(dh, x, down), dB, dm, None, None, None, None


class DoRA:
    """Weight-decomposed low-rank adaptation, one magnitude per output row."""

    name = "dora"
    has_magnitude = True

    def merged_weight(
        self, weight: Tensor, A: Tensor, B: Tensor, magnitude: Tensor | None, scale: float, strength: float = 1.0
    ) -> Tensor:
        if magnitude is None:
            raise ValueError("a DoRA layer has a magnitude")
        W0 = weight.float().flatten(1)
        delta = scale * (B @ A)
        norm = torch.linalg.vector_norm(W0 + delta, dim=1).clamp_min(_TINY)
        gain = (magnitude / norm)[:, None]
        # Not W0 + strength * (W' - W0): this form is W0 at 0 and W' at 1 to the last bit.
        return ((1 + strength * (gain - 1)) * W0 + (strength * gain) * delta).view(weight.shape)

    def prepare(self, group: Group, strength: float) -> None:
        torch.div(group.magnitude, group.row_norms().clamp_min_(_TINY), out=group.gain)
        torch.mul(group.gain, group.scale * strength, out=group.update_gain)
        torch.mul(group.B, group.update_gain[:, :, None], out=group.up)
        if strength != 1.0:
            group.gain.sub_(1).mul_(strength).add_(1)
        if group.bias is not None:
            torch.mul(group.bias, 1 - group.gain, out=group.offset)
        # A row whose magnitude is (almost) 0 cannot tell dm from its output: its gradient is held finite, not guessed.
        smallest = (group.base_norm * _SMALL).clamp_min_(_TINY)
        safe = torch.where(group.magnitude.abs() < smallest, torch.copysign(smallest, group.magnitude), group.magnitude)
        torch.reciprocal(safe, out=group.inverse_magnitude)
        group.cast_down()

    def forward(self, slot: Slot, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        op = slot.op
        if torch.is_grad_enabled():
            return DoRAFunction.apply(x, slot.A, slot.B, slot.magnitude, weight, bias, slot, op)
        down, up = slot.factors(x.dtype)
        return _compose(op, slot, op.base(x, weight, bias), op.down(x, down), up, bias)

    def finish_gradients(self, group: Group) -> None:
        """``norm_grad: full``: subtract the gradient's part along ``V`` (eq. 6).

        ``dV = g * (dW' - (<V, dW'> / c^2) V)`` per row and ``<V, dW'> = c * dm`` (eq. 7), so what the detached backward
        has too much of is ``k * V`` with ``k = g * dm / c``: it depends on ``dm`` and parameters alone, for the whole
        batch at once.
        """
        if not group.norm_grad_full:
            return
        norm = group.row_norms().clamp_min_(_TINY)
        k = (group.magnitude / norm) * group.magnitude_grad / norm
        scale = group.scale
        VA = group.base_times_down().add_(torch.bmm(group.B, torch.bmm(group.A, group.A.mT)), alpha=scale)
        BkV = torch.bmm((group.B * k[:, :, None]).mT, group.stacked_base().float())
        BkV.add_(torch.bmm(torch.bmm((group.B * k[:, :, None]).mT, group.B), group.A), alpha=scale)
        group.B_grad.sub_(VA.mul_(k[:, :, None]), alpha=scale)
        group.A_grad.sub_(BkV, alpha=scale)


_TINY = 1e-12
_SMALL = 1e-6

DORA = DoRA()
