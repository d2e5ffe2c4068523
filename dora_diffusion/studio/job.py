"""What a page is told about a training."""

from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.studio.failures import Failure
from dora_diffusion.studio.observe import ACTIVE, ENDED, State


@dataclass(frozen=True)
class Job:
    """One training as it is at one moment. Times are UTC seconds; what is not known is None.

    Attributes:
        position: 0 is next in line; None when it does not wait.
        starts_in: seconds until a waiting one begins, as far as that can be said.
        stop_asked: somebody asked it to stop, and it has not left yet.
        message: the trainer's or the studio's last words; a failure has its own in plainer ones.
        best_step: the previewed step that is most like the photos.
        settings: in short words: "balanced, 300 steps".
        ordinal: its number among the trainings of its subject, which is what people call it: "training 2".
        changed: the settings, by dotted names of ``TrainConfig``, that were given beside the quality.
        class_images: how many pictures of other things of its kind are made, of how many, while that goes on.
        note: what a remedy changed in comparison to an earlier training, in words.
    """

    id: str
    subject_id: str
    created: float
    position: int | None
    state: State
    step: int
    total: int
    loss: float | None
    likeness: float | None
    seconds_left: float | None
    starts_in: float | None
    step_ms: float | None
    memory_gib: float | None
    device: str
    attempt: int
    stop_asked: bool
    message: str
    failure: Failure | None
    best_step: int | None
    settings: str
    quality: str = ""
    note: str = ""
    started: float | None = None
    ended: float | None = None
    class_images: tuple[int, int] | None = None
    ordinal: int = 1
    changed: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Preview:
    """A picture that was drawn while training. ``path`` lies in ``media/previews``."""

    step: int
    prompt: str
    seed: int
    path: Path
    likeness: float | None
