"""The module that stands where a frozen layer stood."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dora_diffusion.adapters.group import Slot
from dora_diffusion.errors import AdapterError

if TYPE_CHECKING:
    from dora_diffusion.adapters.adapter import Adapter


class AdapterLayer(nn.Module):
    """A frozen Linear or Conv2d and its share of an adapter.

    The adapter's parameters belong to the ``Adapter``, not to this module: moving or casting the model touches only the
    frozen layer, and ``A``, ``B`` and the magnitude stay float32 and in one flat buffer.
    """

    def __init__(self, base: nn.Module, slot: Slot, adapter: "Adapter"):
        super().__init__()
        self.base = base
        self._slot = [slot, adapter]  # in a list, so that nn.Module registers neither as a child
        self._kept: Tensor | None = None

    @property
    def slot(self) -> Slot:
        return self._slot[0]  # type: ignore[return-value]

    @property
    def adapter(self) -> "Adapter":
        return self._slot[1]  # type: ignore[return-value]

    @property
    def weight(self) -> Tensor:
        """The frozen weight (or the merged one, while merged)."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias  # type: ignore[return-value]

    @property
    def is_merged(self) -> bool:
        return self._kept is not None

    def forward(self, x: Tensor) -> Tensor:
        slot, adapter = self.slot, self.adapter
        if self.is_merged or adapter.is_off:
            return self.base(x)
        adapter.ensure_prepared(slot)
        weight, bias = self.weight, self.bias
        if not torch.is_autocast_enabled(x.device.type):
            return adapter.variant.forward(slot, x, weight, bias)
        dtype = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            return adapter.variant.forward(
                slot, x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            )

    @torch.no_grad()
    def merge(self, strength: float = 1.0) -> None:
        """Write the merged weight into the frozen layer, keeping a copy of what was there.

        Raises:
            AdapterError: it is merged already.
        """
        if self.is_merged:
            raise AdapterError(f"{self.slot.name} is merged already; unmerge it first.")
        slot, weight = self.slot, self.weight
        magnitude = slot.magnitude if self.adapter.variant.has_magnitude else None
        merged = self.adapter.variant.merged_weight(weight, slot.A, slot.B, magnitude, slot.scale, strength)
        self._kept = weight.detach().clone()
        weight.copy_(merged)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the kept weight back, bit for bit.

        Raises:
            AdapterError: it is not merged, or was moved to another precision meanwhile.
        """
        if self._kept is None:
            raise AdapterError(f"{self.slot.name} is not merged.")
        if self._kept.dtype != self.weight.dtype:
            raise AdapterError(
                f"{self.slot.name} was merged in {self._kept.dtype} and is now {self.weight.dtype}: its base cannot be "
                "restored; load the base again."
            )
        self.weight.copy_(self._kept)
        self._kept = None
