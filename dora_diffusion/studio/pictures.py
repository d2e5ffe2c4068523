"""Pictures: drawn by the workshop, each a file and a row before it is shown; history; settings read back from files."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dora_diffusion.studio.orders import MAX_PICTURES, MAX_SEED, MAX_STRENGTH, Order
from dora_diffusion.studio.workshop import Workshop

if TYPE_CHECKING:
    from dora_diffusion.studio.database import Database
    from dora_diffusion.studio.home import Home
    from dora_diffusion.studio.subjects import Subjects

__all__ = ["MAX_PICTURES", "MAX_SEED", "MAX_STRENGTH", "Picture", "Pictures"]

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Picture:
    """One picture that was drawn.

    Args:
        path: a PNG in ``media/pictures``, with its settings inside.
        thumb: a JPEG of at most 256 pixels a side.
        created: UTC seconds.
        order: what draws it again: one picture, with its own seed.
        sent: the prompt as the model got it.
        seconds: that drawing it took.
    """

    id: int
    path: Path
    thumb: Path
    created: float
    order: Order
    sent: str
    seconds: float


class Pictures:
    """Draws, and keeps what it drew.

    Args:
        subjects: tells names, triggers and adapters.
    """

    def __init__(self, home: "Home", db: "Database", subjects: "Subjects", workshop: Workshop):
        self.workshop = workshop

    def draw(
        self, order: Order, on_step: OnStep | None = None, stop: threading.Event | None = None
    ) -> Iterator[Picture]:
        """Each picture as soon as it is a file and a row. Stopped, it ends after those that were finished.

        Checks come with the call, before anything is drawn.

        Args:
            on_step: (sampling steps done, of all pictures).

        Raises:
            StudioError: a setting is out of range, the subject has nothing trained yet, or drawing failed.
        """
        raise NotImplementedError

    def history(self, subject_id: str | None = None, limit: int = 24, offset: int = 0) -> list[Picture]:
        """The newest first; of one subject, or of all and the bases too."""
        raise NotImplementedError

    def count(self, subject_id: str | None = None) -> int:
        """How many pictures the history has."""
        raise NotImplementedError

    def get(self, picture_id: int) -> Picture:
        """Raises: StudioError: there is no such picture."""
        raise NotImplementedError

    def read(self, path: Path) -> tuple[Order, list[str]]:
        """What draws the picture in a file again, and notes on what is not here or could not be taken over.

        Reads our own settings, else A1111's ``parameters`` of any tool.

        Raises:
            StudioError: it is no picture, or says nothing of how it was made.
        """
        raise NotImplementedError

    def delete(self, picture_id: int) -> None:
        """Delete a picture, its thumb and its row.

        Raises:
            StudioError: there is no such picture.
        """
        raise NotImplementedError
