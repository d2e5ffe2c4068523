"""What one kind of adapter is: its weight, its forward and backward, and which tensors it keeps ready."""

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from dora_diffusion.adapters.group import Group, Slot


class Variant(Protocol):
    """An adapter kind. Stateless: everything lives in groups and slots.

    A group stacks the layers of one shape; ``prepare`` computes, once an optimizer step and for the whole group at
    once, every tensor that the forward of its layers reads.
    """

    name: str
    has_magnitude: bool

    def merged_weight(
        self, weight: Tensor, A: Tensor, B: Tensor, magnitude: Tensor | None, scale: float, strength: float = 1.0
    ) -> Tensor:
        """``W0 + strength * (W' - W0)`` in float32, shaped as ``weight``."""

    def prepare(self, group: "Group", strength: float) -> None:
        """Fill the group's ready tensors from its parameters."""

    def forward(self, slot: "Slot", x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The adapted layer's output."""

    def finish_gradients(self, group: "Group") -> None:
        """Add what the layers' backward leaves out because it depends on parameters alone; once, before the
        optimizer.
        """
