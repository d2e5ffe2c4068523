"""Training jobs: the queue, and what is true about each job now."""

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import build, dump_yaml, read_yaml
from dora_diffusion.config.presets import lay_over
from dora_diffusion.errors import StudioError
from dora_diffusion.studio import failures, job_files, queue
from dora_diffusion.studio.board import Board, levers, touch
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.disk import link_or_copy, tail, told, write_text
from dora_diffusion.studio.failures import Change, Levers
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.job import Job, Preview
from dora_diffusion.studio.job_settings import JobSettings, nested, short
from dora_diffusion.studio.observe import ACTIVE, ENDED, UNFINISHED, State
from dora_diffusion.studio.subjects import Subject, Subjects

__all__ = ["Job", "Jobs", "Preview"]

# Inside ``Jobs`` the name ``list`` is a method.
Listed = list[Job]
Previews = list[Preview]
Rows = list[sqlite3.Row]
Curve = list[tuple[int, float]]
Steps = list[int]
Names = list[str]

NOTHING: Mapping[str, Any] = MappingProxyType({})
_LISTED = (
    "select jobs.* from jobs join subjects on subjects.id = jobs.subject_id "
    "where subjects.deleted is null and state != 'draft'"
)


class Jobs:
    """The trainings of one home. ``on_change`` is set when the scheduler has something to do.

    Args:
        expected: seconds that a training with these settings takes, as far as that is known at once.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        subjects: Subjects,
        board: Board,
        settings: JobSettings,
        expected: Callable[[TrainConfig], float | None] = lambda config: None,
    ):
        self._home, self._database, self._subjects = home, database, subjects
        self._board, self._settings, self._expected = board, settings, expected
        self._losses = job_files.LossLogs()
        self._revision = _Revision()
        self.on_change = threading.Event()

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
        with told("prepare the training"):
            number = self._draft(subject, quality, overrides, config, note)
        folder = self._home.path_of("job", f"job-{number}")
        try:
            with told("prepare the training"):
                self._fill(folder, self._settings.build(subject, quality, overrides, folder), subject)
            with self._database.transaction() as connection:
                queue.append(connection, number)
                touch(connection, subject.id)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            with self._database.transaction() as connection:
                connection.execute("delete from jobs where number = ?", (number,))
            if isinstance(error, sqlite3.IntegrityError):  # a second click was faster
                raise _busy(subject) from None
            raise
        self.on_change.set()
        return self.get(f"job-{number}")

    def get(self, id: str) -> Job:
        """The job called ``id``.

        Raises:
            StudioError: there is none.
        """
        return self._board.jobs([self._board.row(id)])[0]

    def list(self, limit: int = 50, offset: int = 0, state: State | None = None) -> Listed:
        """The newest first, of those whose subject is not deleted."""
        which = "" if state is None else " and state = :state"
        sql = f"{_LISTED}{which} order by number desc limit :limit offset :offset"
        return self._board.jobs(self._database.rows(sql, {"limit": limit, "offset": offset, "state": state}))

    def count(self, state: State | None = None) -> int:
        """How many ``list`` has in all."""
        which = "" if state is None else " and state = :state"
        row = self._database.row(f"select count(*) as n from ({_LISTED}{which})", {"state": state})
        return int(row["n"]) if row else 0

    def current(self) -> Listed:
        """The active ones, then those that wait, in order."""
        rows = self._board.active_rows() + queue.waiting(self._database)
        jobs = self._board.jobs(rows)
        return [job for job in jobs if job.is_active or job.state == "queued"]

    def of_subject(self, subject_id: str) -> Listed:
        """A subject's trainings, the newest first."""
        subject = self._subjects.get(subject_id)
        sql = "select * from jobs where subject_id = ? and state != 'draft' order by number desc"
        return self._board.jobs(self._database.rows(sql, (subject.id,)))

    def begun(self) -> "set[str]":
        """The subjects of which a training has begun: no other one can have a checkpoint. One query for all."""
        return {
            row["subject_id"] for row in self._database.rows("select distinct subject_id from jobs where attempt > 0")
        }

    def losses(self, id: str) -> Curve:
        """(step, loss) of every logged step, in order."""
        return self._losses.read(job_files.run_folder(self._folder(id)) / "metrics.jsonl")

    def previews(self, id: str) -> Previews:
        """By step, then in the order of the prompts."""
        row = self._board.row(id)
        folder, shown = self._home.path_of("job", id), self._home.media_of("previews", id)
        prompts, seen = json.loads(row["prompts"]), job_files.likenesses(folder)
        previews = []
        for step, number, seed, file in job_files.preview_files(folder):
            with told("show the previews"):
                link_or_copy(file, shown / file.name)
            of_step = seen.get(step)
            prompt = prompts[number] if number < len(prompts) else ""
            likeness = of_step.pictures.get(file.name) if of_step else None
            previews.append(Preview(step, prompt, seed, shown / file.name, likeness))
        return previews

    def likeness(self, id: str) -> Curve:
        """(step, mean likeness of its previews), in order: 0 is any of its class, 1 is as like as the photos."""
        return [(step, found.mean) for step, found in job_files.likenesses(self._folder(id)).items()]

    def checkpoints(self, id: str) -> Steps:
        """The steps whose adapter can be used, in order."""
        return job_files.adapter_steps(self._folder(id))

    def photos(self, id: str) -> Names:
        """The names of the photos it is trained with: those of its subject as it was put in line."""
        return job_files.photo_names(self._folder(id))

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

    def cancel(self, id: str) -> Job:
        """Take it out of the queue, or ask it to save and leave.

        Raises:
            StudioError: it has ended already.
        """
        self._board.note(id)
        number, now = self._board.row(id)["number"], time.time()
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
        self._board.note(id)
        job, row = self.get(id), self._board.row(id)
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
        change = failures.change(remedy, levers(row))
        if change.same_run:
            self._change_settings(id, change, overrides)
            return self._requeue(id, change.words)
        return self.enqueue(job.subject_id, job.quality, {**overrides, **change.settings}, change.words)

    def move_up(self, id: str) -> Job:
        """Let a waiting job change places with the one before it.

        Raises:
            StudioError: it does not wait.
        """
        number = self._board.row(id)["number"]
        with self._database.transaction() as connection:
            if not queue.move_up(connection, number):
                raise StudioError("This training does not wait any more.")
        return self.get(id)

    def remove(self, id: str) -> None:
        """Forget a job that has ended, and delete its folder.

        Raises:
            StudioError: it waits or runs.
        """
        self._board.note(id)
        number = self._board.row(id)["number"]
        with self._database.transaction() as connection:
            gone = connection.execute(f"delete from jobs where number = ? and state in {ENDED}", (number,)).rowcount
            if not gone:
                raise StudioError("This training waits or runs. Cancel it first.")
            connection.execute("update subjects set chosen_job = null, chosen_step = null where chosen_job = ?", (id,))
        shutil.rmtree(self._home.path_of("job", id), ignore_errors=True)
        shutil.rmtree(self._home.media_of("previews", id), ignore_errors=True)

    def drop_drafts(self) -> None:
        """Remove what a server left that was ended while it put a job together."""
        for row in self._database.rows("select number from jobs where state = 'draft'"):
            shutil.rmtree(self._home.path_of("job", f"job-{row['number']}"), ignore_errors=True)
        with self._database.transaction() as connection:
            connection.execute("delete from jobs where state = 'draft'")

    def _folder(self, id: str) -> Path:
        self._board.row(id)
        return self._home.path_of("job", id)

    def _check_ready(self, subject: Subject) -> None:
        if subject.deleted is not None:
            raise StudioError(f"{subject.name} is in the trash. Restore it first.")
        if subject.is_draft:
            raise StudioError("What is it? One or two words, for example: teapot, dog, backpack.")
        if not self._subjects.photo_files(subject.id):
            raise StudioError(f"{subject.name} has no photos yet. Add some first: three to twenty.")
        if any(self._board.note(f"job-{row['number']}") in UNFINISHED for row in self._busy_rows(subject.id)):
            raise _busy(subject)

    def _busy_rows(self, subject_id: str) -> Rows:
        sql = f"select number from jobs where subject_id = ? and state in {UNFINISHED}"
        return self._database.rows(sql, (subject_id,))

    def _draft(
        self, subject: Subject, quality: str, overrides: Mapping[str, Any], config: TrainConfig, note: str
    ) -> int:
        """A row that nobody sees yet, and its empty folder. Returns: the job's number."""
        resolution = self._settings.resolution(config)
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
            "expected_s": self._expected(config),
        }
        while True:
            with self._database.transaction() as connection:
                columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
                number = connection.execute(
                    f"insert into jobs ({columns}, ordinal) values ({places}, "
                    "(select coalesce(max(ordinal), 0) + 1 from jobs where subject_id = :subject_id))",
                    values,
                ).lastrowid
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
        row = self._board.row(id)
        options = Levers.of(config, row["resolution"]).to_json()
        with self._database.transaction() as connection:
            connection.execute(
                "update jobs set overrides = ?, options = ?, settings = ?, expected_s = null where number = ?",
                (
                    json.dumps({**overrides, **change.settings}),
                    json.dumps(options),
                    short(row["quality"], config, {**overrides, **change.settings}),
                    row["number"],
                ),
            )

    def _requeue(self, id: str, note: str) -> Job:
        self._board.note(id)
        row = self._board.row(id)
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
                touch(connection, subject.id)
        except sqlite3.IntegrityError:
            raise _busy(subject) from None
        self.on_change.set()
        return self.get(id)


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


def _busy(subject: Subject) -> StudioError:
    return StudioError(f"{subject.name} is being trained already, or waits for it. One training a subject at a time.")


def _changed(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
