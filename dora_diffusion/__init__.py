"""Teach a Stable Diffusion model one subject from a few photos: DreamBooth with DoRA.

Importing the package imports nothing heavy; each public name is fetched when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "TrainConfig": "dora_diffusion.config",
    "GenerateConfig": "dora_diffusion.config",
    "ExportConfig": "dora_diffusion.config",
    "DoraError": "dora_diffusion.errors",
    "load_base": "dora_diffusion.models",
    "inject": "dora_diffusion.adapters",
    "merge": "dora_diffusion.inference",
    "generate": "dora_diffusion.inference",
    "load_adapter": "dora_diffusion.formats",
    "export": "dora_diffusion.formats",
    "train": "dora_diffusion.training",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
