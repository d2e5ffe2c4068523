"""The whole studio: a home, and everything that works in it."""

import logging
import sys
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

from dora_diffusion.config import TrainConfig
from dora_diffusion.studio.bases import Bases
from dora_diffusion.studio.board import Board
from dora_diffusion.studio.comparisons import Comparisons
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.estimates import Estimates
from dora_diffusion.studio.exports import Exports
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.job_settings import JobSettings
from dora_diffusion.studio.jobs import Jobs
from dora_diffusion.studio.pictures import Pictures
from dora_diffusion.studio.scheduler import Scheduler
from dora_diffusion.studio.slots import slots
from dora_diffusion.studio.subjects import Subjects
from dora_diffusion.studio.trainers import Trainers
from dora_diffusion.studio.workshop import Workshop

TRAINER = (sys.executable, "-m", "dora_diffusion.studio.trainer")
LOG_BYTES, LOG_FILES = 1_000_000, 3


class Studio:
    """Everything of one home.

    Attributes: home, database (also db), subjects, jobs, scheduler, workshop, pictures, comparisons, exports, bases,
    estimates.

    Args:
        home: folder of the studio.
        trainer: the command that trains; the path of a config.yaml is appended.
        workshop: what draws and exports; None makes the real one.

    Raises:
        MachineError: the folder or its database cannot be used.
    """

    def __init__(self, home: Path, trainer: Sequence[str] = TRAINER, workshop: Workshop | None = None):
        self.home = Home(home)
        self.database = Database(self.home.database_file)
        self.workshop = workshop or Workshop(self.home.log_file)
        self.bases = Bases(self.database, self.workshop)
        places = slots()
        settings = JobSettings(self.bases.family_of, self.bases.size_of)
        self.subjects = Subjects(self.home, self.database, self._base_names, self.bases.size_of)
        self.trainers = Trainers(self.home, trainer)
        self.board = Board(self.home, self.database, self.trainers, len(places))
        self.estimates = Estimates(self.database, settings.resolution, self.workshop, self.board)
        self.jobs = Jobs(self.home, self.database, self.subjects, self.board, settings, self._expected_s)
        self.scheduler = Scheduler(
            self.home, self.database, self.subjects, self.jobs, self.board, self.trainers, places, self._make_room
        )
        parts = (self.home, self.database, self.subjects, self.jobs, self.bases, self.workshop)
        self.pictures = Pictures(*parts)
        self.exports = Exports(*parts)
        self.comparisons = Comparisons(self.home, self.pictures)
        self._log: logging.Handler | None = None

    @property
    def is_read_only(self) -> bool:
        """Whether another instance schedules in this home: this one shows, and changes nothing."""
        return self.database.read_only

    def start(self) -> None:
        """Begin to schedule: recover what an earlier server left, and start what waits."""
        if self._log is None:
            self._log = RotatingFileHandler(self.home.log_file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True)
            self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            package = logging.getLogger("dora_diffusion")
            package.addHandler(self._log)
            package.setLevel(logging.INFO)
        self.scheduler.start()

    def close(self) -> None:
        """Stop to schedule. Trainings go on."""
        self.scheduler.close()
        self.workshop.close()
        self.database.close()
        if self._log is not None:
            logging.getLogger("dora_diffusion").removeHandler(self._log)
            self._log.close()
            self._log = None

    def _make_room(self) -> None:
        """Let go of a GPU's memory before a training starts there."""
        self.workshop.release()

    def _expected_s(self, config: TrainConfig) -> float | None:
        estimate = self.estimates.known(config)
        return None if estimate is None else estimate.seconds

    def _base_names(self) -> list[str]:
        return [base.name for base in self.bases.list()]
