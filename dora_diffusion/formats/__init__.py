"""Adapter files: one format a file, from and to ``AdapterState``."""

from dora_diffusion.formats.adapters_on_disk import SETTINGS_NAME, WEIGHTS_NAME, adapter_file, load_adapter
from dora_diffusion.formats.export import export
from dora_diffusion.formats.files import read_safetensors, safetensors_bytes, write_bytes, write_safetensors

__all__ = [
    "SETTINGS_NAME",
    "WEIGHTS_NAME",
    "adapter_file",
    "export",
    "load_adapter",
    "read_safetensors",
    "safetensors_bytes",
    "write_bytes",
    "write_safetensors",
]
