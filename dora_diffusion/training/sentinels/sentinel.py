"""What a check sees of a run, and when it is asked."""

from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.config import TrainConfig
from dora_diffusion.models import BaseModel
from dora_diffusion.training.batches import Batches
from dora_diffusion.training.checkpoint import Progress
from dora_diffusion.training.events import OnEvent
from dora_diffusion.training.stepper import Losses


@dataclass(frozen=True)
class Watched:
    """One run, as its checks see it. ``folder``: where its checkpoints are."""

    config: TrainConfig
    base: BaseModel
    batches: Batches
    progress: Progress
    folder: Path
    tell: OnEvent


class Sentinel:
    """One thing that goes wrong in silence. A check raises ``TrainingError``, or tells a note, and changes nothing."""

    def __init__(self, watched: Watched):
        self.watched = watched
        self.progress = watched.progress

    def before_run(self) -> None:
        """Everything is loaded; no step of this part of the run is done."""

    def before_step(self) -> None:
        """The next step is ``progress.step``."""

    def after_step(self, losses: Losses) -> None:
        """``progress.step`` steps are done; the gradients are still those that were applied."""

    def before_save(self) -> None:
        """Bring ``progress.record`` up to date."""
