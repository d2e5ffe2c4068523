"""Exports: files that other programs read, each proved by those programs' rules before it may be downloaded."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dora_diffusion.studio.workshop import Workshop

if TYPE_CHECKING:
    from dora_diffusion.studio.database import Database
    from dora_diffusion.studio.home import Home
    from dora_diffusion.studio.subjects import Subjects


@dataclass(frozen=True)
class FormatNote:
    """An export format in words.

    Args:
        name: as registered, or "merged" (a diffusers folder, zipped) and "merged_checkpoint" (one file).
        what: what kind of file it is.
        readers: the programs that read it right.
        cannot: what it does not carry, or who reads it wrong.
        takes_rank, takes_strength: which settings mean something for it.
    """

    name: str
    what: str
    readers: tuple[str, ...]
    cannot: str
    takes_rank: bool = False
    takes_strength: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a reader makes of a file.

    Args:
        worst: the worst layer's error, of ``||W'||``.
        worst_of_change: the same of ``||W' - W0||``.
        must: the format is for this reader; others were asked besides.
    """

    reader: str
    ok: bool
    words: str
    worst: float
    worst_of_change: float
    must: bool


@dataclass(frozen=True)
class Export:
    """A file that was exported and proved.

    Args:
        path: in ``media/exports/<id>``; what a browser downloads.
        size: bytes.
        note: what is worth knowing: what was left out, where a learnt trigger's tokens are.
    """

    id: str
    subject_id: str
    format: str
    precision: str
    created: float
    path: Path
    size: int
    sha256: str
    verdicts: tuple[Verdict, ...]
    seconds: float
    note: str


class Exports:
    """Makes, lists and deletes exports."""

    def __init__(self, home: "Home", db: "Database", subjects: "Subjects", workshop: Workshop):
        self.workshop = workshop

    def formats(self) -> list[FormatNote]:
        """What can be exported, the commonest first."""
        raise NotImplementedError

    def export(
        self,
        subject_id: str,
        format: str,
        precision: str = "fp32",
        strength: float = 1.0,
        job_id: str | None = None,
        step: int | None = None,
        rank: int | None = None,
        on_note: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Export:
        """Export a subject's adapter, or a checkpoint of it; it is proved, or there is none.

        Args:
            strength: of what is merged; other formats carry the adapter as it is.
            rank: of a plain LoRA.

        Raises:
            StudioError: a setting is wrong, nothing is trained yet, or a reader would draw something else; nothing is
                left.
        """
        raise NotImplementedError

    def list(self, subject_id: str | None = None) -> list[Export]:
        """The newest first."""
        raise NotImplementedError

    def get(self, export_id: str) -> Export:
        """Raises: StudioError: there is no such export."""
        raise NotImplementedError

    def delete(self, export_id: str) -> None:
        """Delete an export, its file and its row.

        Raises:
            StudioError: there is no such export.
        """
        raise NotImplementedError
