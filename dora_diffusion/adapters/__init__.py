"""Adapters: LoRA and DoRA on Linear and Conv2d layers."""

from dora_diffusion.adapters.adapter import Adapter
from dora_diffusion.adapters.inject import find_layers, inject, inject_state, modules_weights, warn_if_other_base
from dora_diffusion.adapters.merged import merged_weights
from dora_diffusion.adapters.state import AdapterState, Fingerprint, LayerState, NewWord

__all__ = [
    "Adapter",
    "AdapterState",
    "Fingerprint",
    "LayerState",
    "NewWord",
    "find_layers",
    "inject",
    "inject_state",
    "merged_weights",
    "modules_weights",
    "warn_if_other_base",
]
