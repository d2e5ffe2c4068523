"""What is true about each job: rows, what trainers say and whether they live, put together."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dora_diffusion.errors import StudioError
from dora_diffusion.studio import failures, job_files, queue
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.failures import Code, Failure, Levers
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.job import Job
from dora_diffusion.studio.observe import ACTIVE, ENDED, Noted, Observed, State
from dora_diffusion.studio.trainers import Trainers

SETTLED = 5  # steps after which a training's pace says something: the first are slow


@dataclass(frozen=True)
class UnderWay:
    """What a training that runs shows of others like it.

    Args:
        step_s: seconds a step.
        besides_s: seconds that went by without steps so far, those for class images left out; 0 where it is not known.
    """

    base: str
    resolution: int
    batch: int
    step_s: float
    besides_s: float
    memory_gib: float
    device: str


class Board:
    """Looks at jobs, and writes down what it sees.

    Args:
        slots: how many trainings run at the same time.
    """

    def __init__(self, home: Home, database: Database, trainers: Trainers, slots: int):
        self._home, self._database, self._trainers, self._slots = home, database, trainers, slots

    def row(self, id: str) -> sqlite3.Row:
        """The row of a job.

        Raises:
            StudioError: there is none.
        """
        number = self._home.check_id("job", id).removeprefix("job-")
        row = self._database.row("select * from jobs where number = ?", (number,)) if number.isdigit() else None
        if row is None or f"job-{row['number']}" != id:
            raise StudioError(f"There is no training called {id}.")
        return row

    def active_rows(self) -> list[sqlite3.Row]:
        """The rows of the jobs that were active when they were looked at last."""
        return self._database.rows(f"select * from jobs where state in {ACTIVE} order by number")

    def note(self, id: str) -> State:
        """Write down what is true about a job now."""
        row = self.row(id)
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

    def jobs(self, rows: Sequence[sqlite3.Row]) -> list[Job]:
        """What a page is told about some jobs."""
        jobs = [self._job(row) for row in rows]
        if not any(job.state == "queued" for job in jobs):
            return jobs
        line = queue.line(self._database, self._busy_for(), self._slots)
        return [
            replace(job, position=line[job.id].position, starts_in=line[job.id].starts_in) if job.id in line else job
            for job in jobs
        ]

    def under_way(self) -> list[UnderWay]:
        """What the trainings that run show, as soon as their steps have settled."""
        found = []
        for row in self.active_rows():
            seen, report = self._look(row)
            facts = _facts(row, report)
            done = facts["step"] - row["step"]
            if seen.state not in ACTIVE or done < SETTLED or not facts["step_ms"]:
                continue
            step_s = facts["step_ms"] / 1000
            gone = time.time() - (row["started"] or time.time()) - _images_drawn(report)[1]
            besides_s = max(0.0, gone - done * step_s)
            memory, device = facts["memory_gib"] or 0.0, facts["device"]
            found.append(UnderWay(row["base"], row["resolution"], row["batch"], step_s, besides_s, memory, device))
        return found

    def _busy_for(self) -> list[float | None]:
        """How long each active job will go on, as far as that is known."""
        paces, now = queue.paces(self._database), time.time()
        found: list[float | None] = []
        for row in self.active_rows():
            job = self._job(row)
            if job.is_active:
                guess = queue.takes(row, paces)
                if guess is not None:
                    guess = max(0.0, guess - (now - (row["started"] or now)))
                found.append(job.seconds_left if job.seconds_left is not None else guess)
        return found

    def _job(self, row: sqlite3.Row) -> Job:
        id = f"job-{row['number']}"
        is_live = row["state"] in ACTIVE
        seen, report = self._look(row) if is_live else (Observed(row["state"], row["message"], row["code"]), {})
        if is_live and seen.state in ENDED and self._noted_end(row, seen, report):
            return self._job(self.row(id))
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
            class_images=_class_images(report) if seen.state == "starting" else None,
            ordinal=row["ordinal"],
            changed=tuple(json.loads(row["overrides"])),
        )

    def _failure(self, row: sqlite3.Row, seen: Observed, step: int) -> Failure | None:
        if seen.code is None or seen.state not in ("failed", "interrupted"):
            return None
        code: Code = seen.code
        last = None
        if code == "unstable":
            steps = job_files.adapter_steps(self._home.path_of("job", f"job-{row['number']}"))
            last = steps[-1] if steps else None
        return failures.failure(code, failures.plain(code, seen.message, step), levers(row), last)

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
        images, images_s = _images_drawn(report)
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
            "images": images,
            "images_s": images_s,
        }
        with self._database.transaction() as connection:
            connection.execute(
                "update jobs set state = :state, message = :message, code = :code, ended = :ended, pid = null, "
                "slot = null, seconds = seconds + :worked, step = :step, loss = :loss, step_ms = :step_ms, "
                "memory_gib = :memory_gib, device = :device, likeness = :likeness, best_step = :best_step, "
                "images = images + :images, images_s = images_s + :images_s "
                f"where number = :number and attempt = :attempt and state in {ACTIVE}",
                values,
            )
            touch(connection, row["subject_id"])
        self._trainers.forget(f"job-{row['number']}")


def levers(row: sqlite3.Row) -> Levers:
    """The settings of a job that remedies change."""
    return Levers(**json.loads(row["options"]))


def touch(connection: sqlite3.Connection, subject_id: str) -> None:
    """Note that a subject was worked on."""
    connection.execute("update subjects set worked_on = ? where id = ?", (time.time(), subject_id))


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


def _class_images(report: Mapping[str, Any]) -> tuple[int, int] | None:
    """(done, total) of the class images while some are missing."""
    said = report.get("class_images")
    if not isinstance(said, Mapping):
        return None
    done, total = job_files.number(said.get("done")), job_files.number(said.get("total"))
    return (int(done), int(total)) if done is not None and total is not None and 0 <= done < total else None


def _images_drawn(report: Mapping[str, Any]) -> tuple[int, float]:
    """How many class images a trainer has drawn itself, and the seconds that took."""
    said = report.get("images_drawn")
    if not isinstance(said, Mapping):
        return 0, 0.0
    count, seconds = job_files.number(said.get("count")), job_files.number(said.get("seconds"))
    return (int(count), seconds) if count and seconds and count > 0 and seconds > 0 else (0, 0.0)


def _best(found: dict[int, job_files.Likenesses]) -> tuple[float | None, int | None]:
    """The newest likeness, and the step of the greatest."""
    if not found:
        return None, None
    return found[max(found)].mean, max(found, key=lambda step: found[step].mean)
