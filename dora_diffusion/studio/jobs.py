"""Training jobs: the queue, and what is true about each job now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora_diffusion.config import TrainConfig
from dora_diffusion.studio.failures import Failure
from dora_diffusion.studio.observe import ACTIVE, ENDED, State


@dataclass(frozen=True)
class Job:
    """One training as it is at one moment. Times are UTC seconds; what is not known is None.

    Attributes:
        position: 0 is next in line; None when it does not wait.
        starts_in: seconds until a waiting one begins, as far as that can be said.
        stop_asked: somebody asked it to stop, and it has not left yet.
        best_step: the previewed step that is most like the photos.
        settings: in short words: "balanced, 300 steps".
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


class Jobs:
    """The trainings of one home."""

    def enqueue(self, subject_id: str, quality: str, overrides: Mapping[str, Any] = {}) -> Job:  # noqa: B006 - read only
        """Put a training of the subject at the end of the queue.

        Args:
            quality: one of ``qualities``.
            overrides: settings by dotted names of ``TrainConfig`` ("adapter.rank").

        Raises:
            ConfigError: a setting is unknown or out of range.
            StudioError: the subject waits or is trained already, or has no photos.
        """
        raise NotImplementedError

    def qualities(self, base: str) -> dict[str, str]:
        """What can be chosen for a base: name to one line about it; the middle one is the usual."""
        raise NotImplementedError

    def config(self, subject_id: str, quality: str, overrides: Mapping[str, Any] = {}) -> TrainConfig:  # noqa: B006
        """The settings that ``enqueue`` would train with; ``output_dir`` and photos are not final."""
        raise NotImplementedError

    def get(self, id: str) -> Job:
        """The job called ``id``.

        Raises:
            StudioError: there is none.
        """
        raise NotImplementedError

    def list(self, limit: int = 50, offset: int = 0, state: State | None = None) -> "list[Job]":
        """The newest first, of those whose subject is not deleted."""
        raise NotImplementedError

    def current(self) -> "list[Job]":
        """The active ones, then those that wait, in order."""
        raise NotImplementedError

    def of_subject(self, subject_id: str) -> "list[Job]":
        """A subject's trainings, the newest first."""
        raise NotImplementedError

    def cancel(self, id: str) -> Job:
        """Take it out of the queue, or ask it to save and leave.

        Raises:
            StudioError: it has ended already.
        """
        raise NotImplementedError

    def resume(self, id: str) -> Job:
        """Put an interrupted, cancelled or failed one back into the queue; it goes on from its last checkpoint."""
        raise NotImplementedError

    def apply(self, id: str, remedy: str) -> Job:
        """Do what a remedy of the job's failure says. Returns: the job that goes on, which may be a new one.

        Raises:
            StudioError: the remedy is not offered for this job.
        """
        raise NotImplementedError

    def move_up(self, id: str) -> Job:
        """Let a waiting job change places with the one before it."""
        raise NotImplementedError

    def remove(self, id: str) -> None:
        """Forget a job that has ended, and delete its folder."""
        raise NotImplementedError

    def losses(self, id: str) -> "list[tuple[int, float]]":
        """(step, loss) of every logged step, in order."""
        raise NotImplementedError

    def previews(self, id: str) -> "list[Preview]":
        """By step, then in the order of the prompts."""
        raise NotImplementedError

    def likeness(self, id: str) -> "list[tuple[int, float]]":
        """(step, mean likeness of its previews), in order: 0 is any of its class, 1 is as like as the photos."""
        raise NotImplementedError

    def checkpoints(self, id: str) -> "list[int]":
        """The steps whose adapter can be used, in order."""
        raise NotImplementedError

    def adapter(self, id: str, step: int | None = None) -> Path:
        """The adapter file of a step, or of the end.

        Raises:
            StudioError: there is none.
        """
        raise NotImplementedError

    def log_tail(self, id: str, lines: int = 50) -> str:
        """The last lines of the trainer's log."""
        raise NotImplementedError

    def revision(self) -> int:
        """A number that grows whenever anything that a page shows may have changed."""
        raise NotImplementedError
