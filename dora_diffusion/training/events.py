"""What a run tells its listeners.

Progress bars, trackers, files and pages are listeners; the loop knows none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.errors import about


@dataclass(frozen=True)
class Note:
    """Something the user should read."""

    message: str


@dataclass(frozen=True)
class ClassImages:
    """``done`` of ``total`` class images exist."""

    done: int
    total: int


@dataclass(frozen=True)
class RunStarted:
    """Everything is loaded; steps begin after ``step``."""

    output_dir: Path
    step: int
    max_train_steps: int
    facts: dict[str, str]


@dataclass(frozen=True)
class StepDone:
    """One optimizer step. Losses are means over the whole global batch; times in milliseconds and seconds.

    ``instance_loss`` and ``prior_loss`` are the terms as they are minimised: timestep weights and masks are in them,
    ``prior_loss_weight`` is not; ``loss`` is their sum, the second times ``prior_loss_weight``.
    ``applied``: False for a step that was left out because its loss or gradient was not finite.
    """

    step: int
    max_train_steps: int
    loss: float
    instance_loss: float
    prior_loss: float | None
    lr: float
    step_ms: float
    seconds_left: float
    applied: bool = True


@dataclass(frozen=True)
class Planned:
    """What the run will need, measured on two of its steps; previews are not counted.

    ``peak_gib`` of ``total_gib`` of ``device``'s memory; ``seconds`` for the steps that are left.
    """

    peak_gib: float
    total_gib: float
    device: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.peak_gib:.1f} GiB of {self.total_gib:.0f} GiB ({self.device}), {about(self.seconds)}"


@dataclass(frozen=True)
class PreviewReady:
    """Validation pictures were written."""

    step: int
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Saving:
    """A checkpoint is about to be written. ``write_adapter`` writes the adapter of this step, as it would be published.

    A listener that keeps adapters does so before the checkpoint is there: a run that goes on from it has them all.
    """

    step: int
    write_adapter: Callable[[Path], None]


@dataclass(frozen=True)
class Saved:
    """A checkpoint folder is complete."""

    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The adapter file is written. ``stopped``: before the last step, because somebody asked for it."""

    step: int
    path: Path
    stopped: bool


Event = Note | ClassImages | RunStarted | Planned | StepDone | PreviewReady | Saving | Saved | Finished
OnEvent = Callable[[Event], None]
ShouldStop = Callable[[], bool]


class StoppedEarlyError(Exception):
    """Raised inside a run that was asked to stop before its first step; ``train`` turns it into a result."""


def ignore(event: Event) -> None:
    """Listen to nothing."""


def never() -> bool:
    """Do not stop."""
    return False
