"""Small stand-ins for a base model, shared by the adapter tests."""

import torch
from torch import Tensor, nn

from dora_diffusion.adapters import Adapter, inject
from dora_diffusion.config import AdapterConfig


class OneModel:
    """A base of a single component whose layers keep their own names."""

    word = None

    def __init__(self, model: nn.Module):
        self.model = model

    def adaptable(self) -> dict[str, nn.Module]:
        return {"unet": self.model}

    def is_used(self, component: str, path: str) -> bool:
        return True

    def layer_name(self, component: str, path: str) -> str:
        return f"{component}.{path}"

    def preset(self, component: str, name: str) -> str | None:
        return None


LAYERS = {
    "linear": lambda: (nn.Linear(24, 40), torch.randn(2, 5, 24)),
    "linear without bias": lambda: (nn.Linear(24, 40, bias=False), torch.randn(2, 5, 24)),
    "square linear": lambda: (nn.Linear(32, 32), torch.randn(7, 32)),
    "conv 1x1": lambda: (nn.Conv2d(12, 20, 1), torch.randn(2, 12, 6, 6)),
    "conv 3x3": lambda: (nn.Conv2d(12, 20, 3, padding=1), torch.randn(2, 12, 6, 6)),
    "conv stride 2": lambda: (nn.Conv2d(12, 20, 3, stride=2, padding=1, bias=False), torch.randn(2, 12, 8, 8)),
    "conv dilated": lambda: (nn.Conv2d(12, 20, 3, padding=2, dilation=2), torch.randn(2, 12, 8, 8)),
    "conv same": lambda: (nn.Conv2d(12, 20, 3, padding="same"), torch.randn(2, 12, 8, 8)),
    "conv groups": lambda: (nn.Conv2d(12, 20, 3, padding=1, groups=4), torch.randn(2, 12, 6, 6)),
    "conv depthwise": lambda: (nn.Conv2d(12, 12, 3, padding=1, groups=12), torch.randn(2, 12, 6, 6)),
}
# PEFT cannot run dilated convolutions at all, and groups by another formula; the closed form in float64 covers both.
PEFT_LAYERS = [name for name in LAYERS if not any(word in name for word in ("groups", "depthwise", "dilated"))]


def make_layer(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, Tensor]:
    """A model of one frozen layer, and an input."""
    torch.manual_seed(0)
    layer, x = LAYERS[name]()
    return nn.Sequential(layer).to(dtype), x.to(dtype)


def adapt(model: nn.Module, kind: str = "dora", rank: int = 4, **settings: object) -> Adapter:
    """Inject a fresh adapter into every layer of ``model``."""
    return inject(OneModel(model), AdapterConfig(kind=kind, rank=rank, targets=".", **settings))


@torch.no_grad()
def perturb(adapter: Adapter, size: float = 0.05, seed: int = 1) -> Adapter:
    """Move every parameter away from its start, magnitudes by ``size`` of their value."""
    generator = torch.Generator().manual_seed(seed)
    for layer in adapter.layers.values():
        slot = layer.slot
        slot.A.add_((torch.randn(slot.A.shape, generator=generator) * size).to(slot.A.device))
        slot.B.add_((torch.randn(slot.B.shape, generator=generator) * size).to(slot.B.device))
        if adapter.variant.has_magnitude:
            slot.magnitude.mul_((1 + size * torch.randn(slot.magnitude.shape, generator=generator)).to(slot.A.device))
    return adapter


def only_slot(adapter: Adapter):
    """The one slot of a one-layer model."""
    (layer,) = adapter.layers.values()
    return layer.slot


def relative(ours: Tensor, theirs: Tensor) -> float:
    """``|ours - theirs| / |theirs|`` in float64."""
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()
