"""Training jobs: a trainer that is a process of its own, and what is true about it now.

The trainer outlives the page, the browser and the server. It says what it does in ``run/status.json``; the studio notes
in ``job.json`` which process it started. Every state shown is worked out from those two and from the process itself.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio.disk import last_line, read_json, write_text
from dora_diffusion.studio.process import birth, is_alive
from dora_diffusion.studio.subjects import Subject, SubjectStore

State = Literal["new", "starting", "preparing", "training", "saving", "done", "stopped", "failed", "interrupted"]
ACTIVE: tuple[State, ...] = ("starting", "preparing", "training", "saving")
ENDED: tuple[State, ...] = ("done", "stopped", "failed")
PATIENCE_S = 60.0  # a trainer that has not left this long after it was asked may be ended by force
LEAVING_S = 20.0  # how long a trainer may take to end after its last word


@dataclass(frozen=True)
class JobStatus:
    """What is true about a subject's training at one moment. ``loss`` and ``seconds_left`` are None while unknown."""

    subject_id: str
    state: State
    step: int = 0
    max_train_steps: int = 0
    loss: float | None = None
    seconds_left: float | None = None
    message: str = ""
    stop_asked: bool = False

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE


class Studio(SubjectStore):
    """The subjects in a home folder, and the one training that may run.

    Args:
        home: folder of the studio.
        trainer: the command that trains; the path of a config.yaml is appended.
    """

    def __init__(self, home: Path, trainer: Sequence[str] = (sys.executable, "-m", "dora_diffusion.cli", "train")):
        super().__init__(home)
        self._trainer = list(trainer)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._starting = threading.Lock()

    def start(self, subject_id: str) -> None:
        """Start the subject's trainer, or let it go on where it left off.

        Raises:
            StudioError: another training runs, or this one is finished.
            MachineError: the process cannot be started.
        """
        with self._starting:
            subject = self.subject(subject_id)
            self.check_free()
            if self.status(subject_id).state == "done":
                raise StudioError(
                    f"{subject_id} is trained already. Make pictures of it, or change photos, words or quality."
                )
            self._let_leave()
            subject.run_folder.mkdir(exist_ok=True)  # so that the trainer can say what it does before its first file
            pid = self._spawn([*self._trainer, str(subject.config_file)], subject.log_file)
            self._note(subject, {"pid": pid, "born": birth(pid), "stop_asked": None})

    def stop(self, subject_id: str) -> None:
        """Ask the trainer to save and leave; asked again a minute later, it is ended by force.

        Raises:
            StudioError: it does not run.
        """
        subject = self.subject(subject_id)
        job = self._job(subject)
        if not self._lives(job):
            raise StudioError(f"{subject_id} is not being trained, so there is nothing to stop.")
        asked = job.get("stop_asked")
        if isinstance(asked, float) and time.time() - asked < PATIENCE_S:
            return  # a second SIGTERM would end the trainer before it has saved
        try:
            if asked is None:
                os.kill(job["pid"], signal.SIGTERM)
            else:
                os.killpg(job["pid"], signal.SIGKILL)  # start_new_session made its pid the group's
        except ProcessLookupError:  # it left by itself in this very moment
            return
        if asked is None:
            self._note(subject, {**job, "stop_asked": time.time()})

    def running(self) -> str | None:
        """The id of the subject that is being trained, if any; a trainer that said its last word does not train."""
        return next((name for name in self._living() if self.status(name).is_active), None)

    def check_free(self) -> None:
        """Raise StudioError while a training runs."""
        busy = self.running()
        if busy is not None:
            raise StudioError(f"{busy} is being trained, and one training runs at a time. Wait for it, or press Stop.")

    def current(self) -> str | None:
        """The id of the subject that is trained now, or else was worked on last."""
        return self.running() or next((subject.id for subject in self.subjects()), None)

    def status(self, subject_id: str) -> JobStatus:
        """What is true about the subject's training now.

        Raises:
            StudioError: there is no such subject.
        """
        subject = self.subject(subject_id)
        job = self._job(subject)
        # Alive is asked before the trainer's word is read: the other way round, a trainer that says done and leaves in
        # between would look interrupted.
        lives = self._lives(job)
        report = read_json(subject.run_folder / "status.json")
        if report.get("pid") != job.get("pid"):  # the word of an earlier process
            report = {}
        state = _state(subject, job, report, lives)
        return JobStatus(
            subject_id=subject.id,
            state=state,
            step=int(_number(report.get("step")) or 0),
            max_train_steps=int(_number(report.get("max_train_steps")) or subject.steps),
            loss=_number(report.get("loss")),
            seconds_left=_number(report.get("seconds_left")) if state in ACTIVE else None,
            message=_message(subject, job, report, state),
            stop_asked=job.get("stop_asked") is not None,
        )

    def losses(self, subject_id: str) -> list[tuple[int, float]]:
        """(step, loss) of every logged step, in order; of a step that was done again after a resume, the last."""
        logged: dict[int, float] = {}
        try:
            lines = (self.subject(subject_id).run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        for line in lines:
            step, loss = _step_and_loss(line)
            if step is not None and loss is not None:
                logged[step] = loss
        return sorted(logged.items())

    def _spawn(self, command: list[str], log_file: Path) -> int:
        try:
            with log_file.open("ab") as log:
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
        except OSError as error:
            raise MachineError(f"The trainer cannot be started: {error.strerror} ({error.filename}).") from error
        self._children[child.pid] = child
        return child.pid

    def _living(self) -> list[str]:
        """The subjects whose trainer is still a process."""
        notes = (self.home / "subjects").glob("*/job.json")
        return [note.parent.name for note in notes if self._lives(read_json(note))]

    def _let_leave(self) -> None:
        """Wait for a trainer that said its last word and is on its way out: it still holds memory."""
        end = time.monotonic() + LEAVING_S
        while leaving := self._living():
            if time.monotonic() > end:
                raise StudioError(
                    f"The last training, {leaving[0]}, has not let go of the machine yet. Try again in a minute."
                )
            time.sleep(0.05)

    def _lives(self, job: dict[str, Any]) -> bool:
        """Whether the noted process runs; a child that ended is reaped on the way."""
        pid, born = job.get("pid"), job.get("born")
        if not isinstance(pid, int) or not isinstance(born, str):
            return False
        child = self._children.get(pid)
        if child is not None and child.poll() is not None:
            self._children.pop(pid, None)
            return False
        return is_alive(pid, born)

    @staticmethod
    def _job(subject: Subject) -> dict[str, Any]:
        return read_json(subject.folder / "job.json")

    @staticmethod
    def _note(subject: Subject, job: dict[str, Any]) -> None:
        write_text(subject.folder / "job.json", json.dumps(job))


def _state(subject: Subject, job: dict[str, Any], report: dict[str, Any], lives: bool) -> State:
    said = report.get("state")
    if said == "done" and subject.adapter is None:
        return "failed"
    if said in ENDED:
        return cast(State, said)
    if lives:
        return cast(State, said) if said in get_args(State) else "starting"
    if said is not None:
        return "interrupted"
    if not job:
        return "new"
    return "stopped" if job.get("stop_asked") is not None else "failed"


def _message(subject: Subject, job: dict[str, Any], report: dict[str, Any], state: State) -> str:
    """The trainer's own words, or the studio's where the trainer could not say any."""
    if state == "failed" and report.get("state") == "done":
        return "The trainer said it was done, but there is no adapter file. Press Train to try again."
    if state == "failed" and not report:
        said = last_line(subject.log_file) or "it left no word"
        return f"The trainer ended before it began: {said}"
    if state == "stopped" and not report:
        return "Stopped before the first step."
    if state == "interrupted":
        return f"The trainer ended without a last word. Press Train to go on; its log is {subject.log_file}."
    words = report.get("message")
    if isinstance(words, str) and words:
        return words
    return last_line(subject.log_file) if state == "failed" else ""


def _step_and_loss(line: str) -> tuple[int | None, float | None]:
    try:
        entry = json.loads(line)
        step, loss = entry["step"], _number(entry["loss"])
    except (ValueError, TypeError, KeyError):  # the last line may be half written
        return None, None
    return (step, loss) if isinstance(step, int) else (None, None)


def _number(value: object) -> float | None:
    """``value`` as a finite number, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(cast(float, value)) if is_number else None
