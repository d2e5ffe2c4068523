"""Stable Diffusion 1.5, 2.1 and XL with every block and layer of the originals, and few channels."""

from typing import Any

import torch
from small_models import small_pipeline

from dora_diffusion.adapters import AdapterState, inject
from dora_diffusion.config import AdapterConfig
from dora_diffusion.models.base import BaseModel
from dora_diffusion.registry import FAMILIES

_FOUR = {
    "block_out_channels": (8, 16, 24, 24),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
_UNETS: dict[str, dict[str, Any]] = {
    "sd1": _FOUR | {"cross_attention_dim": 16, "attention_head_dim": 4},
    "sd2": _FOUR | {"cross_attention_dim": 24, "attention_head_dim": [2, 4, 6, 6], "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
        "cross_attention_dim": 16 + 24,
        "attention_head_dim": [2, 4, 6],
        "use_linear_projection": True,
        "transformer_layers_per_block": [1, 2, 10],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 20,
    },
}


def slim_pipeline(family: str, seed: int = 0) -> Any:
    """``small_pipeline`` with a UNet that has all of the original's layers (282 in SD 1.5, 794 in XL)."""
    from diffusers import UNet2DConditionModel

    pipe = small_pipeline(family, seed)
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(sample_size=8, layers_per_block=2, norm_num_groups=4, **_UNETS[family])
    pipe.register_modules(unet=unet.eval())
    return pipe


def slim_base(family: str, seed: int = 0) -> BaseModel:
    """The same as a loaded base."""
    return BaseModel(f"slim-{family}", FAMILIES.load(family), slim_pipeline(family, seed))


@torch.no_grad()
def moved_on(
    base: BaseModel, kind: str = "dora", targets: str = "full", text_encoders: bool = True, size: float = 0.05
) -> AdapterState:
    """An adapter of ``base`` that looks trained: every parameter moved, rank 4 and alpha 6. The base is left plain.

    ``targets`` are the UNet's; text encoders get all that their largest preset names.
    """
    config = AdapterConfig(
        kind=kind, rank=4, alpha=6, targets=targets, train_text_encoder=text_encoders, text_encoder_targets="full"
    )
    adapter = inject(base, config)
    generator = torch.Generator().manual_seed(1)
    for layer in adapter.layers.values():
        slot = layer.slot
        slot.B.copy_(torch.randn(slot.B.shape, generator=generator) * size)
        if adapter.variant.has_magnitude:
            slot.magnitude.mul_(1 + size * torch.randn(slot.magnitude.shape, generator=generator))
    state = adapter.state(base.name, {"trigger": "sks"} | base.schedule_facts())
    adapter.eject()
    return state
