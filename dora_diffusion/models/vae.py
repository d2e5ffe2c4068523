"""Another autoencoder for a base: SDXL's own overflows in half precision, and a repaired one is used in its place."""

from pathlib import Path
from typing import Any

import torch

from dora_diffusion.errors import ModelError
from dora_diffusion.models.base import BaseModel


def replace_vae(base: BaseModel, source: str, allow_pickle: bool = False) -> None:
    """Give ``base`` the autoencoder at ``source``: a folder in diffusers' layout, or a hub name. It stays float32.

    Raises:
        ModelError: there is none, or its latents are of another shape than the UNet's.
    """
    from diffusers import AutoencoderKL

    if Path(source).is_file():
        raise ModelError(f"The VAE {source} is a single file; give a folder in diffusers' layout or a hub name.")
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise ModelError(f"The VAE {source} has no config.json; give the folder that holds it, often called vae.")
    try:
        # None is diffusers' word for "safetensors where there are any, else pickles".
        vae: Any = AutoencoderKL.from_pretrained(
            source, torch_dtype=torch.float32, use_safetensors=None if allow_pickle else True
        )
    except Exception as error:  # whatever a broken file, or the network, makes diffusers raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"The VAE {source} cannot be loaded: {reason}") from error
    ours, theirs = _latent_shape(vae), _latent_shape(base.vae)
    if ours != theirs:
        raise ModelError(
            f"The VAE {source} has latents of {ours[0]} channels at 1/{ours[1]} of the side, and {base.name} is made "
            f"for {theirs[0]} at 1/{theirs[1]}; give one of the same family."
        )
    base.pipe.vae = vae


def _latent_shape(vae: Any) -> tuple[int, int]:
    """Channels of the latents, and pixels that a latent pixel stands for, along one side."""
    return int(vae.config.latent_channels), 2 ** (len(vae.config.block_out_channels) - 1)
