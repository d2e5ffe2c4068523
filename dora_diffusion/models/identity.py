"""A digest of a base model's weights: class images and caches are filed under it."""

from hashlib import blake2b

import torch
from torch import nn

from dora_diffusion.models.base import BaseModel

SAMPLES = 16


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
            flat = tensor.detach().reshape(-1)
            picks = torch.linspace(0, flat.numel() - 1, min(SAMPLES, flat.numel()), device=flat.device).long()
            summary = torch.cat([flat[picks].double(), flat.double().sum()[None]]).cpu()
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(summary.numpy().tobytes())
    return digest.hexdigest()
