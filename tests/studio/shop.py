"""A studio's drawing half, with subjects and trainings that are rows and files, and a workshop that loads nothing."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.bases import Bases
from dora_diffusion.studio.board import Board
from dora_diffusion.studio.comparisons import Comparisons
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.estimates import Estimates
from dora_diffusion.studio.exports import Exports
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.job_settings import JobSettings
from dora_diffusion.studio.pictures import Pictures
from dora_diffusion.studio.subjects import Subject
from dora_diffusion.studio.trainers import Trainers
from dora_diffusion.studio.workshop import Workshop

FAKE_WORKSHOP = Path(__file__).with_name("fake_workshop.py")


def fake_workshop(folder: Path, pause_s: float = 0.0, **settings: Any) -> Workshop:
    """A workshop whose process is a small script."""
    return Workshop(folder / "app.log", [sys.executable, str(FAKE_WORKSHOP), str(pause_s)], **settings)


class Shop:
    """Everything that draws and exports, over one home.

    Args:
        adapters: files or folders by subject id; those subjects are made, each with one finished training.
    """

    def __init__(self, home: Path, workshop: Workshop, **adapters: Path | None):
        self.home = Home(home)
        self.database = Database(self.home.database_file)
        self.workshop = workshop
        self.adapters = adapters
        self.steps: dict[tuple[str, int | None], Path] = {}
        for subject_id in adapters:
            self.add_subject(subject_id)
        self.bases = Bases(self.database, workshop)
        parts: Any = (self.home, self.database, self, self.jobs, self.bases, workshop)
        self.pictures = Pictures(*parts)
        self.exports = Exports(*parts)
        self.comparisons = Comparisons(self.home, self.pictures)
        board = Board(self.home, self.database, Trainers(self.home, []), 1)
        settings = JobSettings(self.bases.family_of, self.bases.size_of)
        self.estimates = Estimates(self.database, settings.resolution, workshop, board)

    def add_subject(self, subject_id: str, name: str = "Rex", noun: str = "dog", base: str = "toybox") -> None:
        with self.database.transaction() as connection:
            connection.execute(
                "insert into subjects (id, name, class_noun, trigger, base, created, worked_on) "
                "values (?, ?, ?, 'sks', ?, ?, ?)",
                [subject_id, name, noun, base, time.time(), time.time()],
            )
        self.add_job(subject_id, base=base)

    def add_job(self, subject_id: str, **facts: Any) -> str:
        row = {
            "subject_id": subject_id,
            "created": time.time(),
            "state": "done",
            "quality": "balanced",
            "overrides": "{}",
            "settings": "",
            "base": "toybox",
            "resolution": 128,
            "batch": 2,
            "prompts": "[]",
            "options": "[]",
            "total": 100,
            **facts,
        }
        names, marks = ", ".join(row), ", ".join("?" for _ in row)
        with self.database.transaction() as connection:
            done = connection.execute(f"insert into jobs ({names}) values ({marks})", list(row.values()))
        return f"job-{done.lastrowid}"

    # What pictures and exports ask of ``Subjects``.

    def get(self, subject_id: str) -> Subject:
        row = self.database.row("select * from subjects where id = ?", [subject_id])
        if row is None:
            raise StudioError(f"There is no subject called {subject_id}.")
        names = ("id", "name", "class_noun", "trigger", "base", "created", "deleted", "chosen_job", "chosen_step")
        return Subject(**{name: row[name] for name in names})

    def adapter(self, subject_id: str) -> Path | None:
        return self.adapters.get(subject_id)

    @property
    def jobs(self) -> Any:
        """What they ask of ``Jobs``."""

        def get(job_id: str) -> Any:
            row = self.database.row("select * from jobs where number = ?", [job_id.rpartition("-")[2]])
            if row is None:
                raise StudioError(f"There is no job called {job_id}.")
            return SimpleNamespace(id=job_id, subject_id=row["subject_id"])

        def adapter(job_id: str, step: int | None = None) -> Path:
            if (job_id, step) not in self.steps:
                raise StudioError(f"{job_id} has no step {step}.")
            return self.steps[job_id, step]

        return SimpleNamespace(get=get, adapter=adapter)

    def close(self) -> None:
        self.workshop.close()
        self.database.close()
