"""Exports: files that other programs read, each proved by those programs' rules before it may be downloaded."""

import json
import math
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora_diffusion.errors import StudioError
from dora_diffusion.registry import FORMATS, did_you_mean
from dora_diffusion.studio.bases import Bases
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.export_formats import FORMATS_IN_WORDS, MERGED, FormatNote
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.intake import slug
from dora_diffusion.studio.jobs import Jobs
from dora_diffusion.studio.lookup import Lookup
from dora_diffusion.studio.orders import MAX_STRENGTH
from dora_diffusion.studio.subjects import Subjects
from dora_diffusion.studio.workshop import Workshop

__all__ = ["Export", "Exports", "FormatNote", "Verdict"]

PRECISIONS = ("fp32", "fp16", "bf16")
MAX_RANK = 512
_A_DAY_S = 24 * 3600
# Said to a command line, these mean nothing on a page.
_OTHER_WORDS = {
    "Without --single_file, a folder is written for diffusers.": "Take “merged” for a folder that diffusers loads.",
    "; give another --output_dir": "",
    "; give another --output": "",
    " Give another --output.": "",
    "export --format ": "export the format ",
}


@dataclass(frozen=True)
class Verdict:
    """What a reader makes of a file.

    Args:
        words: how many layers it reads right, or what is wrong.
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

    def __init__(
        self, home: Home, database: Database, subjects: Subjects, jobs: Jobs, bases: Bases, workshop: Workshop
    ):
        self._home, self._database, self._workshop = home, database, workshop
        self._lookup = Lookup(home, database, subjects, jobs, bases)

    def formats(self, subject_id: str | None = None) -> "list[FormatNote]":
        """What can be exported, the commonest first; of a subject, with those readers that its base suits.

        Raises:
            StudioError: there is no such subject.
        """
        if subject_id is None:
            return list(FORMATS_IN_WORDS)
        base = self._lookup.base_of(self._lookup.subject(subject_id), None)
        return [note.on(base) for note in FORMATS_IN_WORDS]

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
            on_note: told what happens, in a sentence.

        Raises:
            StudioError: a setting is wrong, nothing is trained yet, or a reader would draw something else; nothing is
                left.
        """
        _check(format, precision, strength, rank)
        subject = self._lookup.subject(subject_id)
        base = self._lookup.base_of(subject, job_id)
        adapter = self._lookup.adapter(subject, job_id, step)
        self._database.check_writable()
        began = time.time()
        asked = {"format": format, "precision": precision, "rank": rank}
        with self._draft() as draft:
            notes: list[str] = []
            arguments = {
                **asked,
                "adapter": str(adapter),
                "base": base,
                "strength": strength,
                "folder": str(draft),
                "stem": f"{slug(subject.name)}-{format}",
            }
            made = self._workshop.call("export", arguments, _listener(draft, notes, on_note), stop)
            row = {
                **asked,
                "subject_id": subject.id,
                "job_id": job_id,
                "step": step,
                "created": began,
                "strength": strength if format in MERGED else None,
                "size": made["size"],
                "sha256": made["sha256"],
                "verdicts": json.dumps(made["verdicts"]),
                "seconds": time.time() - began,
                "note": " ".join(dict.fromkeys(notes)),
            }
            return self.get(self._keep(draft, made["file"], row))

    def list(self, subject_id: str | None = None) -> "list[Export]":
        """The newest first."""
        where, values = "subject_id in (select id from subjects where deleted is null)", []
        if subject_id is not None:
            where, values = "subject_id = ?", [self._home.check_id("subject", subject_id)]
        rows = self._database.rows(f"select * from exports where {where} order by number desc limit 500", values)
        return [self._from_row(row) for row in rows]

    def get(self, export_id: str) -> Export:
        """Raises: StudioError: there is no such export."""
        word, _, number = self._home.check_id("export", export_id).rpartition("-")
        known = word == "export" and number.isdigit() and len(number) < 16
        row = self._database.row("select * from exports where number = ?", [int(number)]) if known else None
        if row is None:
            raise StudioError(f"There is no export called {export_id}; it may have been deleted.")
        return self._from_row(row)

    def delete(self, export_id: str) -> None:
        """Delete an export, its file and its row.

        Raises:
            StudioError: there is no such export.
        """
        export = self.get(export_id)
        with self._database.transaction() as connection:
            connection.execute("delete from exports where number = ?", [int(export.id.rpartition("-")[2])])
        shutil.rmtree(self._home.path_of("export", export.id), ignore_errors=True)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """An empty folder to export into, gone afterwards; what is refused meanwhile is told in the words of a page."""
        self._sweep()
        draft = self._home.tmp / f"exporting-{secrets.token_hex(6)}"
        try:
            draft.mkdir(parents=True)
            yield draft
        except StudioError as error:
            raise type(error)(plain(str(error).replace(f"{draft}/", ""))) from None
        except OSError as error:
            raise StudioError(f"The export cannot be written: {error.strerror or error}. Free some space.") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _keep(self, draft: Path, file: str, row: Mapping[str, Any]) -> str:
        """Give what was made its id, its place and its row, together or not at all."""
        columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        with self._database.transaction() as connection:
            inserted = connection.execute(f"insert into exports ({columns}, path) values ({marks}, '')", row)
            export_id = f"export-{inserted.lastrowid}"
            place = self._home.path_of("export", export_id)
            path = str((place / file).relative_to(self._home.media))
            connection.execute("update exports set path = ? where number = ?", [path, inserted.lastrowid])
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            draft.rename(place)
        return export_id

    def _sweep(self) -> None:
        """Remove what a server left that was ended in the middle of an export."""
        for folder in self._home.tmp.glob("exporting-*"):
            if time.time() - folder.stat().st_mtime > _A_DAY_S:
                shutil.rmtree(folder, ignore_errors=True)

    def _from_row(self, row: sqlite3.Row) -> Export:
        verdicts = tuple(Verdict(**one) for one in json.loads(row["verdicts"]))
        path = self._home.media / row["path"]
        same = {
            name: row[name]
            for name in ("subject_id", "format", "precision", "created", "size", "sha256", "seconds", "note")
        }
        return Export(id=f"export-{row['number']}", path=path, verdicts=verdicts, **same)


def _listener(
    draft: Path, notes: list[str], on_note: Callable[[str], None] | None
) -> Callable[[Mapping[str, Any]], None]:
    """What hears of an export as it is made: warnings become ``notes`` of the result, the others go to ``on_note``."""

    def listen(event: Mapping[str, Any]) -> None:
        if event["event"] == "warning":
            notes.append(plain(event["text"].replace(f"{draft}/", "")))
        if event["event"] == "note" and on_note is not None:
            on_note(event["text"])

    return listen


def plain(text: str) -> str:
    """A message of the package in the words of a page."""
    for said, better in _OTHER_WORDS.items():
        text = text.replace(said, better)
    return text


def _check(format: str, precision: str, strength: float, rank: int | None) -> None:
    known = [note.name for note in FORMATS_IN_WORDS]
    if format not in (*FORMATS, *MERGED):
        near = did_you_mean(str(format)[:40], known)
        raise StudioError(f"There is no export format {str(format)[:40]!r}; there are: {', '.join(known)}.{near}")
    if precision not in PRECISIONS:
        raise StudioError(f"The precision is one of {', '.join(PRECISIONS)}; got {str(precision)[:20]!r}.")
    if not isinstance(strength, int | float) or not math.isfinite(strength) or not 0 <= strength <= MAX_STRENGTH:
        raise StudioError(f"Strength lies between 0 and {MAX_STRENGTH}, got {str(strength)[:20]}.")
    if strength != 1 and format not in MERGED:
        raise StudioError(
            f"{format} carries the adapter as it is; a strength is chosen where it is loaded. Leave it 1."
        )
    if rank is not None and format != "lora":
        raise StudioError(f"A rank says how near a plain LoRA comes; {format} keeps the adapter's own. Leave it empty.")
    if rank is not None and not (isinstance(rank, int) and not isinstance(rank, bool) and 1 <= rank <= MAX_RANK):
        raise StudioError(f"The rank is a whole number from 1 to {MAX_RANK}, got {str(rank)[:20]}.")
