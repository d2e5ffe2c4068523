"""What a job's state is, decided by what is: pure, so that every case is a row of a table."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from dora_diffusion.studio.failures import Code

State = Literal["draft", "queued", "starting", "running", "saving", "done", "failed", "cancelled", "interrupted"]
ACTIVE: tuple[State, ...] = ("starting", "running", "saving")
UNFINISHED: tuple[State, ...] = ("queued", *ACTIVE)
ENDED: tuple[State, ...] = ("done", "failed", "cancelled", "interrupted")

_LIVE: dict[str, State] = {"training": "running", "saving": "saving"}
_LAST_WORDS = ("done", "stopped", "failed")
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

INTERRUPTED = "The training ended without a last word: the computer, the studio or the trainer was stopped."


@dataclass(frozen=True)
class Noted:
    """What the studio wrote down about a job."""

    state: State
    stop_asked: bool = False


@dataclass(frozen=True)
class Death:
    """What is known about the end of a trainer.

    Attributes:
        status: exit status of our own child, negative for a signal; None when it was not our child.
        out_of_memory: the kernel ended some process for want of memory since the start.
        said: the last line of its log.
    """

    status: int | None = None
    out_of_memory: bool = False
    said: str = ""


@dataclass(frozen=True)
class Observed:
    """The state, and why. ``code`` goes with failed and interrupted."""

    state: State
    message: str = ""
    code: Code | None = None


def observe(
    noted: Noted, alive: bool, report: Mapping[str, Any], has_adapter: bool, death: Death | None = None
) -> Observed:
    """The state of a job.

    Args:
        alive: whether its trainer holds the lock; asked BEFORE the report was read, or a trainer that says done and
            leaves in between would look interrupted.
        report: what its trainer wrote last, empty before its first word.
        has_adapter: the file that makes a run a finished one is there.
    """
    if noted.state not in ACTIVE:
        return Observed(noted.state)
    said = str(report.get("message") or "")
    word = str(report.get("state"))
    if alive:
        leaving = word in _LAST_WORDS
        return Observed("saving" if leaving else _LIVE.get(word, "starting"), "" if leaving else said)
    if word == "done" and has_adapter:
        return Observed("done")
    if word == "done":
        return Observed("failed", "The trainer said it was done, but there is no adapter file.", "broken")
    if word == "failed":
        return Observed("failed", said or "The trainer failed without saying why.", _code(report))
    if noted.stop_asked:
        return Observed("cancelled", said)
    return _without_a_last_word(death or Death())


def _without_a_last_word(death: Death) -> Observed:
    if death.out_of_memory and death.status in (None, -signal.SIGKILL):
        return Observed("failed", "The system ended the trainer, because the machine's memory ran out.", "killed")
    if death.status is not None and -death.status in _CRASHES:
        name = signal.Signals(-death.status).name
        return Observed("failed", f"The trainer crashed ({name}). {death.said}".rstrip(), "broken")
    if death.status is not None and death.status > 0 and death.said:
        return Observed("failed", f"The trainer ended before its last word: {death.said}", "broken")
    return Observed("interrupted", INTERRUPTED, "interrupted")


def _code(report: Mapping[str, Any]) -> Code:
    code = report.get("code")
    return cast(Code, code) if code in get_args(Code) else "broken"
