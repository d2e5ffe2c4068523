"""Adapters that look trained, made in a moment."""

import torch

from dora_diffusion.adapters import AdapterState, inject
from dora_diffusion.config import AdapterConfig
from dora_diffusion.models import load_base


def moved_state(kind: str, size: float = 0.02, targets: str = "attn", seed: int = 0) -> AdapterState:
    """An adapter whose every parameter was moved, as training would; ``size`` in units of each tensor's own scale."""
    base = load_base("toybox")
    config = AdapterConfig(
        kind=kind, rank=8, alpha=12, targets=targets, train_text_encoder=True, text_encoder_targets=targets
    )
    adapter = inject(base, config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapter.layers.values():
            slot = layer.slot
            slot.B.copy_(torch.randn(slot.B.shape, generator=generator) * size)
            if adapter.variant.has_magnitude:
                slot.magnitude.mul_(1 + size * torch.randn(slot.magnitude.shape, generator=generator))
    return adapter.state("toybox", {"trigger": "sks", "instance_prompt": "a photo of sks teapot", "step": "1"})
