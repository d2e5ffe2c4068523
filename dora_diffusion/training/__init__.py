"""DreamBooth training."""

from dora_diffusion.training.events import Event, OnEvent, ShouldStop
from dora_diffusion.training.run import TrainResult, train

__all__ = ["Event", "OnEvent", "ShouldStop", "TrainResult", "train"]
