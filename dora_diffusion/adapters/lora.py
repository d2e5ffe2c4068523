"""LoRA (arXiv:2106.09685): ``W' = W0 + scale * B A``."""

from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters.group import Group, Slot
from dora_diffusion.adapters.operators import Operator


class LoRAFunction(torch.autograd.Function):
    """``y = base(x) + up(down(x))``; keeps ``x`` and ``h = A x`` for the backward pass.

    ``A`` and ``B`` are the float32 parameters and receive the gradients; ``down`` and ``up = scale * B`` are their
    copies in the precision of the base.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, A: Tensor, B: Tensor, weight: Tensor, bias: Tensor | None, slot: Slot, op: Operator
    ) -> Tensor:
        down, up = slot.factors(x.dtype)
        h = op.down(x, down)
        y = op.add_up(op.base(x, weight, bias), h, up)
        ctx.save_for_backward(x, h, weight, down, up)
        ctx.op, ctx.factor = op, slot.scale
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, h, weight, down, up = ctx.saved_tensors
        op: Operator = ctx.op
        dh, dB = op.up_gradients(dy, h, up)
        dx = op.input_gradient(dy, dh, x, weight, down) if ctx.needs_input_grad[0] else None
        return dx, op.down_gradient(dh, x, down), dB.mul_(ctx.factor), None, None, None, None


class LoRA:
    """Low-rank adaptation."""

    name = "lora"
    has_magnitude = False

    def merged_weight(
        self, weight: Tensor, A: Tensor, B: Tensor, magnitude: Tensor | None, scale: float, strength: float = 1.0
    ) -> Tensor:
        return weight.float() + (strength * scale) * (B @ A).view(weight.shape)

    def prepare(self, group: Group, strength: float) -> None:
        torch.mul(group.B, group.scale * strength, out=group.up)
        group.cast_down()

    def forward(self, slot: Slot, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_grad_enabled():
            return LoRAFunction.apply(x, slot.A, slot.B, weight, bias, slot, slot.op)
        down, up = slot.factors(x.dtype)
        return slot.op.add_up(slot.op.base(x, weight, bias), slot.op.down(x, down), up)

    def finish_gradients(self, group: Group) -> None:
        return


LORA = LoRA()
