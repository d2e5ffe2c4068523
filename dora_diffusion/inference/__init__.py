"""Pictures and merged pipelines from a trained adapter."""

from dora_diffusion.inference.device import place
from dora_diffusion.inference.draw import Drawing, draw, draw_tensor
from dora_diffusion.inference.generate import generate
from dora_diffusion.inference.merge import merge
from dora_diffusion.inference.merged_pipeline import MergedPipeline, MergedWeights
from dora_diffusion.inference.picture import read_settings, save_picture

__all__ = [
    "Drawing",
    "MergedPipeline",
    "MergedWeights",
    "draw",
    "draw_tensor",
    "generate",
    "merge",
    "place",
    "read_settings",
    "save_picture",
]
