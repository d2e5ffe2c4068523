"""A digest of a base model's weights: class images and caches are filed under it."""

from hashlib import blake2b

import torch
from torch import nn

from dora_diffusion.models.base import BaseModel

SAMPLES = 16
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an entry


def base_digest(base: BaseModel) -> str:
    """16 hex digits that change when any tensor of UNet, text encoder or autoencoder does.

    Reads each tensor's sum and sixteen spread entries, so that a full-size model takes a second. Made before an adapter
    is injected.
    """
    return _digest(base.unet, base.vae, *base.adaptable().values())


def autoencoder_digest(base: BaseModel) -> str:
    """16 hex digits that change when any tensor of the autoencoder does; read as for ``base_digest``."""
    return _digest(base.vae)


def _digest(*parts: nn.Module) -> str:
    digest = blake2b(digest_size=8)
    for part in parts:
        for name, tensor in part.state_dict().items():
            # Whole numbers throughout: a sum of bits is the same in any order, so on any device, and positions past
            # 2^24 have no float32 of their own.
            bits = tensor.detach().reshape(-1).view(BITS[tensor.element_size()])
            spread = max(1, min(SAMPLES, bits.numel()) - 1)
            picks = torch.arange(min(SAMPLES, bits.numel()), device=bits.device) * (bits.numel() - 1) // spread
            summary = torch.cat([bits[picks].long(), bits.sum(dtype=torch.int64)[None]]).cpu()
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(summary.numpy().tobytes())
    return digest.hexdigest()
