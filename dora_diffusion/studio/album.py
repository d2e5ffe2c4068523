"""The photos of a subject: kept as they were cleaned, shown in ``media/``, with what is to be said about each."""

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.errors import StudioError
from dora_diffusion.studio import photo_check
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.disk import link_or_copy, told
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.intake import MAX_PHOTOS, Stored, make_thumb, store_photos


@dataclass(frozen=True)
class PhotoNote:
    """A photo of a subject: files that a page may show, and what is to be said about it, a sentence each.

    ``name`` is the stored file's ("03.jpg", told as photo 3), ``given_name`` the user's ("IMG_1234.JPG").
    """

    name: str
    given_name: str
    path: Path
    thumb: Path
    findings: tuple[str, ...]


class Album:
    """The photos of one home's subjects, by the subjects' ids, which are known to be good."""

    def __init__(self, home: Home, database: Database):
        self._home, self._database = home, database
        # Photos are large: one is opened at a time, however many people add some.
        self._one_at_a_time = threading.Lock()

    def folder(self, id: str) -> Path:
        """Where a subject's photos are kept."""
        return self._home.path_of("subject", id) / "photos"

    def notes(self, id: str) -> list[PhotoNote]:
        """A subject's photos, in order."""
        rows = self._database.rows("select * from photos where subject_id = ? order by name", (id,))
        shown, thumbs = self._home.media_of("photos", id), self._home.media_of("thumbs", id)
        notes = []
        for row in rows:
            stored = self.folder(id) / row["name"]
            if not stored.is_file():  # somebody tidied up by hand
                continue
            with told("show the photos"):
                link_or_copy(stored, shown / row["name"])
                make_thumb(stored, thumbs / row["name"])
            findings = photo_check.sentences(json.loads(row["findings"]))
            notes.append(PhotoNote(row["name"], row["given_name"], shown / row["name"], thumbs / row["name"], findings))
        return notes

    def files(self, id: str) -> list[Path]:
        """The stored photos, in order."""
        rows = self._database.rows("select name from photos where subject_id = ? order by name", (id,))
        files = [self.folder(id) / row["name"] for row in rows]
        return [file for file in files if file.is_file()]

    def add(self, id: str, paths: Sequence[Path], resolution: int) -> list[str]:
        """Add photos. Returns: what was refused and why, a sentence each; the good ones are kept.

        Args:
            resolution: side in pixels of the pictures that training will make of them.

        Raises:
            StudioError: there would be too many.
        """
        self._database.check_writable()
        with self._one_at_a_time:
            rows = self._database.rows("select name, digest from photos where subject_id = ?", (id,))
            if len(rows) + len(paths) > MAX_PHOTOS:
                raise StudioError(
                    f"At most {MAX_PHOTOS} photos; there are {len(rows)} already, and {len(paths)} more are too many."
                )
            known = {row["digest"]: row["name"] for row in rows}
            first = max((_number(row["name"]) for row in rows), default=0) + 1
            stored, refused = store_photos(paths, self.folder(id), first)
            fresh = []
            for photo in stored:
                if photo.digest in known:
                    (self.folder(id) / photo.name).unlink(missing_ok=True)
                    refused.append(f"{photo.given_name} is there already: it is photo {_number(known[photo.digest])}.")
                else:
                    fresh.append(photo)
            if fresh:
                self._note(id, fresh)
                self._check(id, resolution)
        return refused

    def remove(self, id: str, name: str, resolution: int) -> None:
        """Remove the photo stored as ``name``.

        Raises:
            StudioError: there is none.
        """
        with self._one_at_a_time:
            found = self._findings(id)
            if name not in found:
                raise StudioError(f"There is no photo {str(name)[:40]!r}. Load the page again.")
            with self._database.transaction() as connection:
                connection.execute("delete from photos where subject_id = ? and name = ?", (id, name))
                _touch(connection, id)
            places = (self.folder(id), self._home.media_of("photos", id), self._home.media_of("thumbs", id))
            for folder in places:
                (folder / name).unlink(missing_ok=True)
            if photo_check.mentions(found, name):
                self._check(id, resolution)

    def check(self, id: str, resolution: int) -> None:
        """Look at all photos of a subject again, for another resolution."""
        with self._one_at_a_time:
            self._check(id, resolution)

    def _note(self, id: str, photos: Sequence[Stored]) -> None:
        with self._database.transaction() as connection:
            connection.executemany(
                "insert into photos (subject_id, name, given_name, width, height, digest, findings) "
                "values (?, ?, ?, ?, ?, ?, '[]')",
                [(id, p.name, p.given_name, p.width, p.height, p.digest) for p in photos],
            )
            _touch(connection, id)

    def _check(self, id: str, resolution: int) -> None:
        """Look at all photos together: which are alike is about two of them."""
        found = photo_check.check(self.folder(id), resolution)
        with self._database.transaction() as connection:
            connection.executemany(
                "update photos set findings = ? where subject_id = ? and name = ?",
                [(json.dumps(findings), id, name) for name, findings in found.items()],
            )

    def _findings(self, id: str) -> dict[str, photo_check.Findings]:
        rows = self._database.rows("select name, findings from photos where subject_id = ?", (id,))
        return {row["name"]: tuple(json.loads(row["findings"])) for row in rows}


def _number(name: str) -> int:
    """The number in a stored photo's name."""
    return int(name.removesuffix(".jpg"))


def _touch(connection: sqlite3.Connection, id: str) -> None:
    connection.execute("update subjects set worked_on = ? where id = ?", (time.time(), id))
