"""The whole studio: a home, and everything that works in it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dora_diffusion.studio.database import Database
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.jobs import Jobs
from dora_diffusion.studio.subjects import Subjects

TRAINER = (sys.executable, "-m", "dora_diffusion.studio.trainer")


class Studio:
    """Everything of one home.

    Attributes: home, database (also db), subjects, jobs, scheduler, and, as they are made: workshop, pictures,
    comparisons, exports, bases, estimates.

    Args:
        home: folder of the studio.
        trainer: the command that trains; the path of a config.yaml is appended.
        workshop: what draws and exports; None makes the real one.
    """

    home: Home
    database: Database
    subjects: Subjects
    jobs: Jobs
    workshop: Any
    pictures: Any
    comparisons: Any
    exports: Any
    bases: Any
    estimates: Any

    def __init__(self, home: Path, trainer: Sequence[str] = TRAINER, workshop: Any = None):
        raise NotImplementedError

    @property
    def db(self) -> Database:
        return self.database

    @property
    def is_read_only(self) -> bool:
        """Whether another instance schedules in this home: this one shows, and changes nothing."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to schedule: recover what an earlier server left, and start what waits."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop to schedule. Trainings go on."""
        raise NotImplementedError
