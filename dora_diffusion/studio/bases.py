"""Base models that a subject can be taught to: the embedded one, and those that were added and checked."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dora_diffusion.studio.workshop import Workshop

if TYPE_CHECKING:
    from dora_diffusion.studio.database import Database


@dataclass(frozen=True)
class Base:
    """A base model.

    Args:
        name: what TrainConfig calls it: "toybox", a folder, a file or a hub name.
        label: what a person calls it.
        family: a name in ``registry.FAMILIES``.
        place: "embedded", "folder", "file" or "hub".
        size: side of the pictures it was trained on, in pixels.
        is_missing: it was here and is not any more.
        note: what is to be said of it, in a sentence; mostly empty.
    """

    name: str
    label: str
    family: str
    place: str
    size: int
    is_missing: bool
    note: str


@dataclass(frozen=True)
class BaseCheck:
    """Whether a name is a base model, and what was found, in plain words."""

    ok: bool
    words: str
    base: Base | None = None


class Bases:
    """The base models of this studio; toybox is always one."""

    def __init__(self, db: "Database", workshop: Workshop):
        self.workshop = workshop

    def list(self) -> list[Base]:
        """toybox, then the others by label."""
        raise NotImplementedError

    def get(self, name: str) -> Base:
        """Raises: StudioError: it was not added."""
        raise NotImplementedError

    def check(self, name: str) -> BaseCheck:
        """Whether a folder, file or hub name can be used; nothing is downloaded or kept."""
        raise NotImplementedError

    def add(self, name: str, download: bool = False, stop: threading.Event | None = None) -> Base:
        """Check a base and keep it in the list.

        Args:
            download: let a hub name be downloaded; left out, it must be in this machine's cache already.

        Raises:
            StudioError: it cannot be used; the message says why.
        """
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Take a base off the list; its files stay.

        Raises:
            StudioError: it is toybox, is not in the list, or a subject needs it.
        """
        raise NotImplementedError
