"""Base models: one family a file, found by name, loaded by diffusers."""

from dora_diffusion.models.attention import choose_attention, probe_backends
from dora_diffusion.models.base import BaseModel, Family
from dora_diffusion.models.identity import autoencoder_digest, base_digest
from dora_diffusion.models.load import load_base, resolve
from dora_diffusion.models.schedule import schedule_from

__all__ = [
    "BaseModel",
    "Family",
    "autoencoder_digest",
    "base_digest",
    "choose_attention",
    "load_base",
    "probe_backends",
    "resolve",
    "schedule_from",
]
