"""Training jobs: the queue, and what is true about each job now."""

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import build, dump_yaml, read_yaml
from dora_diffusion.config.presets import lay_over
from dora_diffusion.errors import StudioError
from dora_diffusion.studio import failures, job_files, queue
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.disk import link_or_copy, tail, write_text
from dora_diffusion.studio.failures import Change, Code, Failure, Levers
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.job_settings import JobSettings, nested, short
from dora_diffusion.studio.observe import ACTIVE, ENDED, Noted, Observed, State
from dora_diffusion.studio.subjects import Subject, Subjects
from dora_diffusion.studio.trainers import Trainers

NOTHING: Mapping[str, Any] = MappingProxyType({})
_LISTED = (
    "select jobs.* from jobs join subjects on subjects.id = jobs.subject_id "
    "where subjects.deleted is null and state != 'draft'"
)


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
    """The trainings of one home.

    Args:
        slots: where trainings may run at the same time.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        subjects: Subjects,
        trainers: Trainers,
        settings: JobSettings,
        slots: Sequence[str] = ("cpu",),
    ):
        self._home, self._database, self._subjects = home, database, subjects
        self._trainers, self._settings, self._slots = trainers, settings, tuple(slots)
        self._losses = job_files.LossLogs()
        self._revision = _Revision()
        self.on_change = threading.Event()  # set when the scheduler has something to do

    # What can be asked for ------------------------------------------------------------------------------------------

    def qualities(self, base: str) -> dict[str, str]:
        """What can be chosen for a base: name to one line about it; the middle one is the usual."""
        return self._settings.qualities(base)

    def config(self, subject_id: str, quality: str, overrides: Mapping[str, Any] = NOTHING) -> TrainConfig:
        """The settings that ``enqueue`` would train with; the folders are the job's only then.

        Raises:
            ConfigError: as for ``enqueue``.
        """
        subject = self._subjects.get(subject_id)
        return self._settings.build(subject, quality, overrides, self._home.path_of("subject", subject.id))

    def enqueue(self, subject_id: str, quality: str, overrides: Mapping[str, Any] = NOTHING, note: str = "") -> Job:
        """Put a training of the subject at the end of the queue.

        Args:
            quality: one of ``qualities``.
            overrides: settings by dotted names of ``TrainConfig`` ("adapter.rank").
            note: what is different from an earlier training, in words.

        Raises:
            ConfigError: a setting is unknown or out of range.
            StudioError: the subject waits or is trained already, or has no words or photos.
        """
        self._database.check_writable()
        subject = self._subjects.get(subject_id)
        self._check_ready(subject)
        config = self.config(subject_id, quality, overrides)
        number = self._draft(subject, quality, overrides, config, note)
        folder = self._home.path_of("job", f"job-{number}")
        try:
            self._fill(folder, self._settings.build(subject, quality, overrides, folder), subject)
            with self._database.transaction() as connection:
                queue.append(connection, number)
                _touch(connection, subject.id)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            with self._database.transaction() as connection:
                connection.execute("delete from jobs where number = ?", (number,))
            if isinstance(error, sqlite3.IntegrityError):  # a second click was faster
                raise _busy(subject) from None
            raise
        self.on_change.set()
        return self.get(f"job-{number}")

    # What is ---------------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Job:
        """The job called ``id``.

        Raises:
            StudioError: there is none.
        """
        return self._jobs([self._row(id)])[0]

    def list(self, limit: int = 50, offset: int = 0, state: State | None = None) -> "list[Job]":
        """The newest first, of those whose subject is not deleted."""
        which = "" if state is None else " and state = :state"
        sql = f"{_LISTED}{which} order by number desc limit :limit offset :offset"
        return self._jobs(self._database.rows(sql, {"limit": limit, "offset": offset, "state": state}))

    def count(self, state: State | None = None) -> int:
        """How many ``list`` has in all."""
        which = "" if state is None else " and state = :state"
        row = self._database.row(f"select count(*) as n from ({_LISTED}{which})", {"state": state})
        return int(row["n"]) if row else 0

    def current(self) -> "list[Job]":
        """The active ones, then those that wait, in order."""
        rows = self.active_rows() + queue.waiting(self._database)
        jobs = self._jobs(rows)
        return [job for job in jobs if job.is_active or job.state == "queued"]

    def of_subject(self, subject_id: str) -> "list[Job]":
        """A subject's trainings, the newest first."""
        subject = self._subjects.get(subject_id)
        sql = "select * from jobs where subject_id = ? and state != 'draft' order by number desc"
        return self._jobs(self._database.rows(sql, (subject.id,)))

    def begun(self) -> "set[str]":
        """The subjects of which a training has begun: no other one can have a checkpoint. One query for all."""
        return {
            row["subject_id"] for row in self._database.rows("select distinct subject_id from jobs where attempt > 0")
        }

    def losses(self, id: str) -> "list[tuple[int, float]]":
        """(step, loss) of every logged step, in order."""
        return self._losses.read(job_files.run_folder(self._folder(id)) / "metrics.jsonl")

    def previews(self, id: str) -> "list[Preview]":
        """By step, then in the order of the prompts."""
        row = self._row(id)
        folder, shown = self._folder(id), self._home.media_of("previews", id)
        prompts, seen = json.loads(row["prompts"]), job_files.likenesses(self._folder(id))
        previews = []
        for step, number, seed, file in job_files.preview_files(folder):
            link_or_copy(file, shown / file.name)
            of_step = seen.get(step)
            prompt = prompts[number] if number < len(prompts) else ""
            likeness = of_step.pictures.get(file.name) if of_step else None
            previews.append(Preview(step, prompt, seed, shown / file.name, likeness))
        return previews

    def likeness(self, id: str) -> "list[tuple[int, float]]":
        """(step, mean likeness of its previews), in order: 0 is any of its class, 1 is as like as the photos."""
        return [(step, found.mean) for step, found in job_files.likenesses(self._folder(id)).items()]

    def checkpoints(self, id: str) -> "list[int]":
        """The steps whose adapter can be used, in order."""
        return job_files.adapter_steps(self._folder(id))

    def adapter(self, id: str, step: int | None = None) -> Path:
        """The adapter file of a step, or of the end.

        Raises:
            StudioError: there is none.
        """
        file = job_files.adapter_file(self._folder(id), step)
        if file is None:
            what = "has not finished" if step is None else f"has no checkpoint of step {step}"
            raise StudioError(f"This training {what}. Choose one of the checkpoints that are listed.")
        return file

    def log_tail(self, id: str, lines: int = 50) -> str:
        """The last lines of the trainer's log."""
        return tail(self._folder(id) / "trainer.log", max(1, min(lines, 1000)))

    def revision(self) -> int:
        """A number that grows whenever anything that a page shows may have changed."""
        facts: list[object] = [self._database.changes(), self._database.read_only]
        for row in self._database.rows(f"select number from jobs where state in {ACTIVE}"):
            folder = self._home.path_of("job", f"job-{row['number']}")
            facts.append([_changed(job_files.run_folder(folder) / "status.json"), _changed(folder / "likeness.jsonl")])
        return self._revision.of(facts)

    # What can be done -------------------------------------------------------------------------------------------------

    def cancel(self, id: str) -> Job:
        """Take it out of the queue, or ask it to save and leave.

        Raises:
            StudioError: it has ended already.
        """
        self.note(id)
        number, now = self._row(id)["number"], time.time()
        with self._database.transaction() as connection:
            waited = connection.execute(
                "update jobs set state = 'cancelled', ended = ?, place = null, message = 'Taken out of the queue.' "
                "where number = ? and state = 'queued'",
                (now, number),
            ).rowcount
            asked = connection.execute(
                f"update jobs set stop_asked = coalesce(stop_asked, ?) where number = ? and state in {ACTIVE}",
                (now, number),
            ).rowcount
        if not waited and not asked:
            raise StudioError("This training has ended already, so there is nothing to cancel.")
        self.on_change.set()
        return self.get(id)

    def resume(self, id: str) -> Job:
        """Put an interrupted, cancelled or failed one back into the queue; it goes on from its last checkpoint.

        Raises:
            StudioError: it is finished, or another training of its subject waits or runs.
        """
        return self._requeue(id, "")

    def apply(self, id: str, remedy: str) -> Job:
        """Do what a remedy of the job's failure says. Returns: the job that goes on, which may be a new one.

        Raises:
            StudioError: the remedy is not offered for this job.
        """
        self.note(id)
        job, row = self.get(id), self._row(id)
        offered = [offer.name for offer in job.failure.remedies] if job.failure else []
        if remedy not in offered or job.failure is None:
            raise StudioError(
                f"{str(remedy)[:40]!r} is not offered for this training; offered: {', '.join(offered) or 'nothing'}."
            )
        if remedy == "use_checkpoint":
            self._subjects.choose(job.subject_id, id, self.checkpoints(id)[-1])
            return self.get(id)
        if remedy == "resume" or (remedy == "retry" and job.failure.code != "photos"):
            return self.resume(id)
        overrides = json.loads(row["overrides"])
        if remedy == "retry":
            return self.enqueue(job.subject_id, job.quality, overrides, "again, with the photos as they are now")
        change = failures.change(remedy, _levers(row))
        if change.same_run:
            self._change_settings(id, change, overrides)
            return self._requeue(id, change.words)
        return self.enqueue(job.subject_id, job.quality, {**overrides, **change.settings}, change.words)

    def move_up(self, id: str) -> Job:
        """Let a waiting job change places with the one before it.

        Raises:
            StudioError: it does not wait.
        """
        number = self._row(id)["number"]
        with self._database.transaction() as connection:
            if not queue.move_up(connection, number):
                raise StudioError("This training does not wait any more.")
        return self.get(id)

    def remove(self, id: str) -> None:
        """Forget a job that has ended, and delete its folder.

        Raises:
            StudioError: it waits or runs.
        """
        self.note(id)
        number = self._row(id)["number"]
        with self._database.transaction() as connection:
            gone = connection.execute(f"delete from jobs where number = ? and state in {ENDED}", (number,)).rowcount
            if not gone:
                raise StudioError("This training waits or runs. Cancel it first.")
            connection.execute("update subjects set chosen_job = null, chosen_step = null where chosen_job = ?", (id,))
        shutil.rmtree(self._home.path_of("job", id), ignore_errors=True)
        shutil.rmtree(self._home.media_of("previews", id), ignore_errors=True)

    # What the scheduler does ------------------------------------------------------------------------------------------

    def active_rows(self) -> "list[sqlite3.Row]":
        """The rows of the jobs that were active when they were looked at last."""
        return self._database.rows(f"select * from jobs where state in {ACTIVE} order by number")

    def note(self, id: str) -> State:
        """Write down what is true about a job now."""
        row = self._row(id)
        if row["state"] not in ACTIVE:
            state: State = row["state"]
            return state
        seen, report = self._look(row)
        if seen.state in ENDED:
            self._note_end(row, seen, report)
        elif seen.state != row["state"]:
            with self._database.transaction() as connection:
                connection.execute(
                    f"update jobs set state = ? where number = ? and attempt = ? and state in {ACTIVE}",
                    (seen.state, row["number"], row["attempt"]),
                )
        return seen.state

    def drop_drafts(self) -> None:
        """Remove what a server left that was ended while it put a job together."""
        for row in self._database.rows("select number from jobs where state = 'draft'"):
            shutil.rmtree(self._home.path_of("job", f"job-{row['number']}"), ignore_errors=True)
        with self._database.transaction() as connection:
            connection.execute("delete from jobs where state = 'draft'")

    # How --------------------------------------------------------------------------------------------------------------

    def _row(self, id: str) -> sqlite3.Row:
        number = self._home.check_id("job", id).removeprefix("job-")
        row = self._database.row("select * from jobs where number = ?", (number,)) if number.isdigit() else None
        if row is None or f"job-{row['number']}" != id:
            raise StudioError(f"There is no training called {id}.")
        return row

    def _folder(self, id: str) -> Path:
        self._row(id)
        return self._home.path_of("job", id)

    def _check_ready(self, subject: Subject) -> None:
        if subject.deleted is not None:
            raise StudioError(f"{subject.name} is in the trash. Restore it first.")
        if subject.is_draft:
            raise StudioError("What is it? One or two words, for example: teapot, dog, backpack.")
        if not self._subjects.photo_files(subject.id):
            raise StudioError(f"{subject.name} has no photos yet. Add some first: three to twenty.")
        if any(self.note(f"job-{row['number']}") in (*ACTIVE, "queued") for row in self._busy_rows(subject.id)):
            raise _busy(subject)

    def _busy_rows(self, subject_id: str) -> "list[sqlite3.Row]":
        sql = f"select number from jobs where subject_id = ? and state in {('queued', *ACTIVE)}"
        return self._database.rows(sql, (subject_id,))

    def _draft(
        self, subject: Subject, quality: str, overrides: Mapping[str, Any], config: TrainConfig, note: str
    ) -> int:
        """A row that nobody sees yet, and its empty folder. Returns: the job's number."""
        resolution = config.data.resolution or self._settings.resolution(subject.base)
        data, run = config.data, config.run
        values = {
            "subject_id": subject.id,
            "created": time.time(),
            "state": "draft",
            "quality": quality,
            "overrides": json.dumps(dict(overrides), default=str),
            "settings": short(quality, config, overrides),
            "note": note,
            "base": subject.base,
            "resolution": resolution,
            "batch": run.train_batch_size * run.gradient_accumulation_steps,
            "prompts": json.dumps([data.fill(prompt) for prompt in run.validation_prompt]),
            "options": json.dumps(Levers.of(config, resolution).to_json()),
            "total": run.max_train_steps,
        }
        while True:
            with self._database.transaction() as connection:
                columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
                number = connection.execute(f"insert into jobs ({columns}) values ({places})", values).lastrowid
            try:
                self._home.path_of("job", f"job-{number}").mkdir(mode=0o700)
                return int(number or 0)
            except FileExistsError:  # of an older database
                with self._database.transaction() as connection:
                    connection.execute("delete from jobs where number = ?", (number,))

    def _fill(self, folder: Path, config: TrainConfig, subject: Subject) -> None:
        """Settings, and the photos as they are now: those of a job never change, so that a resume is exact."""
        (folder / "photos").mkdir(mode=0o700)
        for photo in self._subjects.photo_files(subject.id):
            link_or_copy(photo, folder / "photos" / photo.name)
        write_text(folder / "config.yaml", dump_yaml(config))

    def _change_settings(self, id: str, change: Change, overrides: Mapping[str, Any]) -> None:
        """Change settings that may change between the parts of one run."""
        file = self._folder(id) / "config.yaml"
        content = lay_over({**read_yaml(file), "preset": None}, {})
        for section, values in nested(change.settings).items():
            content[section] = {**content[section], **values}
        config = build(TrainConfig, content, "")
        write_text(file, dump_yaml(config))
        row = self._row(id)
        options = Levers.of(config, row["resolution"]).to_json()
        with self._database.transaction() as connection:
            connection.execute(
                "update jobs set overrides = ?, options = ?, settings = ? where number = ?",
                (
                    json.dumps({**overrides, **change.settings}),
                    json.dumps(options),
                    short(row["quality"], config, {**overrides, **change.settings}),
                    row["number"],
                ),
            )

    def _requeue(self, id: str, note: str) -> Job:
        self.note(id)
        row = self._row(id)
        subject = self._subjects.get(row["subject_id"])
        if subject.deleted is not None:
            raise StudioError(f"{subject.name} is in the trash. Restore it first.")
        if row["state"] not in ("interrupted", "cancelled", "failed"):
            words = "is finished" if row["state"] == "done" else "waits or runs already"
            raise StudioError(f"This training {words}, so there is nothing to resume.")
        try:
            with self._database.transaction() as connection:
                queue.append(connection, row["number"])
                connection.execute(
                    "update jobs set note = trim(note || ' ' || ?) where number = ?", (note, row["number"])
                )
                _touch(connection, subject.id)
        except sqlite3.IntegrityError:
            raise _busy(subject) from None
        self.on_change.set()
        return self.get(id)

    def _look(self, row: sqlite3.Row) -> tuple[Observed, Mapping[str, Any]]:
        noted = Noted(row["state"], row["stop_asked"] is not None)
        return self._trainers.look(f"job-{row['number']}", noted, row["oom_kills"])

    def _noted_end(self, row: sqlite3.Row, seen: Observed, report: Mapping[str, Any]) -> bool:
        """Write an end down that somebody sees before the scheduler does; False where this instance may not."""
        try:
            self._note_end(row, seen, report)
        except StudioError:
            return False
        return True

    def _note_end(self, row: sqlite3.Row, seen: Observed, report: Mapping[str, Any]) -> None:
        facts, now = _facts(row, report), time.time()
        best = _best(job_files.likenesses(self._home.path_of("job", f"job-{row['number']}")))
        values = {
            "number": row["number"],
            "attempt": row["attempt"],
            "state": seen.state,
            "message": seen.message,
            "code": seen.code,
            "ended": now,
            "worked": max(0.0, now - (row["started"] or now)),
            "step": facts["step"],
            "loss": facts["loss"],
            "step_ms": facts["step_ms"],
            "memory_gib": facts["memory_gib"],
            "device": facts["device"],
            "likeness": best[0],
            "best_step": best[1],
        }
        with self._database.transaction() as connection:
            connection.execute(
                "update jobs set state = :state, message = :message, code = :code, ended = :ended, pid = null, "
                "slot = null, seconds = seconds + :worked, step = :step, loss = :loss, step_ms = :step_ms, "
                "memory_gib = :memory_gib, device = :device, likeness = :likeness, best_step = :best_step "
                f"where number = :number and attempt = :attempt and state in {ACTIVE}",
                values,
            )
            _touch(connection, row["subject_id"])
        self._trainers.forget(f"job-{row['number']}")

    def _jobs(self, rows: "Sequence[sqlite3.Row]") -> "list[Job]":
        jobs = [self._job(row) for row in rows]
        if not any(job.state == "queued" for job in jobs):
            return jobs
        line = queue.line(self._database, self._busy_for(), len(self._slots))
        return [
            replace(job, position=line[job.id].position, starts_in=line[job.id].starts_in) if job.id in line else job
            for job in jobs
        ]

    def _busy_for(self) -> "list[float | None]":
        """How long each active job will go on, as far as that is known."""
        paces = queue.paces(self._database)
        found: list[float | None] = []
        for row in self.active_rows():
            job = self._job(row)
            if job.is_active:
                pace = paces.get(row["base"])
                guess = None if pace is None else pace * max(0, job.total - job.step)
                found.append(job.seconds_left if job.seconds_left is not None else guess)
        return found

    def _job(self, row: sqlite3.Row) -> Job:
        id = f"job-{row['number']}"
        is_live = row["state"] in ACTIVE
        seen, report = self._look(row) if is_live else (Observed(row["state"], row["message"], row["code"]), {})
        if is_live and seen.state in ENDED and self._noted_end(row, seen, report):
            return self._job(self._row(id))
        facts = _facts(row, report)
        likeness, best = row["likeness"], row["best_step"]
        if is_live:
            likeness, best = _best(job_files.likenesses(self._home.path_of("job", id)))
        is_active = seen.state in ACTIVE
        return Job(
            id=id,
            subject_id=row["subject_id"],
            created=row["created"],
            position=None,
            state=seen.state,
            step=facts["step"],
            total=row["total"],
            loss=facts["loss"],
            likeness=likeness,
            seconds_left=job_files.number(report.get("seconds_left")) if is_active else None,
            starts_in=None,
            step_ms=facts["step_ms"],
            memory_gib=facts["memory_gib"],
            device=facts["device"],
            attempt=row["attempt"],
            stop_asked=row["stop_asked"] is not None and is_active,
            message=seen.message,
            failure=self._failure(row, seen, facts["step"]),
            best_step=best,
            settings=row["settings"],
            quality=row["quality"],
            note=row["note"],
            started=row["started"],
            ended=row["ended"],
        )

    def _failure(self, row: sqlite3.Row, seen: Observed, step: int) -> Failure | None:
        if seen.code is None or seen.state not in ("failed", "interrupted"):
            return None
        code: Code = seen.code
        last = None
        if code == "unstable":
            steps = job_files.adapter_steps(self._home.path_of("job", f"job-{row['number']}"))
            last = steps[-1] if steps else None
        return failures.failure(code, failures.plain(code, seen.message, step), _levers(row), last)


class _Revision:
    """Turns facts into a number that grows when they change, also over restarts."""

    def __init__(self) -> None:
        self._number, self._facts = time.time_ns() // 1_000_000, ""
        self._lock = threading.Lock()

    def of(self, facts: object) -> int:
        told = repr(facts)
        with self._lock:
            if told != self._facts:
                self._facts = told
                self._number += 1
            return self._number


def _facts(row: sqlite3.Row, report: Mapping[str, Any]) -> dict[str, Any]:
    """What a trainer said last, over what is noted from before."""
    facts: dict[str, Any] = {
        name: job_files.number(report.get(name)) or row[name] for name in ("loss", "step_ms", "memory_gib")
    }
    step = job_files.number(report.get("step"))
    facts["step"] = int(step) if step else row["step"]
    device = report.get("device")
    facts["device"] = device if isinstance(device, str) else row["device"]
    return facts


def _best(found: "dict[int, job_files.Likenesses]") -> tuple[float | None, int | None]:
    """The newest likeness, and the step of the greatest."""
    if not found:
        return None, None
    return found[max(found)].mean, max(found, key=lambda step: found[step].mean)


def _levers(row: sqlite3.Row) -> Levers:
    return Levers(**json.loads(row["options"]))


def _busy(subject: Subject) -> StudioError:
    return StudioError(f"{subject.name} is being trained already, or waits for it. One training a subject at a time.")


def _touch(connection: sqlite3.Connection, subject_id: str) -> None:
    connection.execute("update subjects set worked_on = ? where id = ?", (time.time(), subject_id))


def _changed(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
