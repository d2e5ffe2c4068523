"""Base models that a subject can be taught to: the embedded one, and those that were added and checked."""

import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.workshop import Workshop

EMBEDDED = "toybox"
MAX_NAME = 1000


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


TOYBOX = Base(
    EMBEDDED,
    "Toybox (built in)",
    "sd1",
    "embedded",
    128,
    False,
    "A small model of a toy world: quick to try things with; its pictures are small.",
)


class Bases:
    """The base models of this studio; toybox is always one."""

    def __init__(self, database: Database, workshop: Workshop):
        self._database, self._workshop = database, workshop

    def list(self) -> "list[Base]":
        """toybox, then the others by label."""
        rows = self._database.rows("select * from bases order by label collate nocase, name")
        return [TOYBOX, *(_from_row(row) for row in rows)]

    def get(self, name: str) -> Base:
        """Raises: StudioError: it was not added."""
        found = self._find(name)
        if found is None:
            raise StudioError(
                f"The base model {str(name)[:80]!r} is not in the list. Add it first; without a download there is "
                f"always {EMBEDDED!r}."
            )
        return found

    def called(self, name: str) -> Base | None:
        """The base of this name, or of this shown name: what a picture's settings say."""
        return self._find(name) or next((base for base in self.list() if shown_name(base.name) == name), None)

    def family_of(self, name: str) -> str:
        """The family of a base; of one that is in no list any more, the commonest."""
        base = self.called(name)
        return base.family if base else "sd1"

    def size_of(self, name: str) -> int:
        """Side in pixels of the pictures that a base is trained with; of one in no list any more, the commonest."""
        base = self.called(name)
        return base.size if base else 512

    def check(self, name: str) -> BaseCheck:
        """Whether a folder, file or hub name can be used; nothing is downloaded or kept."""
        try:
            base = self._checked(name)
        except StudioError as error:
            return BaseCheck(False, str(error))
        return BaseCheck(True, f"{base.label}: {_FAMILY_WORDS[base.family]}, {base.size} x {base.size} pixels.", base)

    def add(self, name: str, download: bool = False, stop: threading.Event | None = None) -> Base:
        """Check a base and keep it in the list.

        Args:
            download: let a hub name be downloaded; left out, it must be in this machine's cache already.

        Raises:
            StudioError: it cannot be used; the message says why.
        """
        self._database.check_writable()
        base = self._download(name, stop) if download else self._checked(name, stop)
        if base.place != "embedded":
            with self._database.transaction() as connection:
                connection.execute(
                    "insert into bases (name, label, family, place, size, added, note) values (?, ?, ?, ?, ?, ?, ?) "
                    "on conflict (name) do update set family = excluded.family, size = excluded.size, "
                    "note = excluded.note",
                    [base.name, base.label, base.family, base.place, base.size, time.time(), base.note],
                )
        return self.get(base.name)

    def remove(self, name: str) -> None:
        """Take a base off the list; its files stay.

        Raises:
            StudioError: it is toybox, is not in the list, or a subject needs it.
        """
        base = self.get(name)
        if base.place == "embedded":
            raise StudioError("The built-in base stays: it is part of the program.")
        with self._database.transaction() as connection:
            users = connection.execute(
                "select name from subjects where base = ? and deleted is null limit 4", [base.name]
            ).fetchall()
            if users:
                named = ", ".join(row["name"] for row in users[:3]) + (" and others" if len(users) > 3 else "")
                raise StudioError(f"{base.label} is the base of {named}. Delete them or give them another base first.")
            connection.execute("delete from bases where name = ?", [base.name])

    def _find(self, name: Any) -> Base | None:
        if name == EMBEDDED:
            return TOYBOX
        if not isinstance(name, str):
            return None
        row = self._database.row("select * from bases where name = ?", [_printable(name)])
        return None if row is None else _from_row(row)

    def _checked(self, name: str, stop: threading.Event | None = None) -> Base:
        wanted = tidied_name(name)
        if wanted == EMBEDDED:
            return TOYBOX
        return _from_facts(wanted, self._workshop.call("check_base", {"name": wanted}, stop=stop))

    def _download(self, name: str, stop: threading.Event | None) -> Base:
        """In a process of its own: it is the only one that may reach the network, and others need not wait for it."""
        wanted = tidied_name(name)
        if _place(wanted) != "hub":
            return self._checked(wanted, stop)
        workshop = self._workshop.sibling({"HF_HUB_OFFLINE": "0"})
        try:
            return _from_facts(wanted, workshop.call("download_base", {"name": wanted}, stop=stop))
        finally:
            workshop.close()


def shown_name(name: str) -> str:
    """A base's name without the folders of this machine: what may be told to others."""
    return name if _place(name) in ("hub", "embedded") else Path(name).name


def tidied_name(name: Any) -> str:
    """A folder, file or hub name as it was typed or pasted: without quotes, ``~`` written out, whole.

    Raises:
        StudioError: it is empty, too long or not text.
    """
    text = name.strip().strip("'\"").strip() if isinstance(name, str) else ""
    if not text:
        raise StudioError(
            "Which model? Give a folder in diffusers' layout, a .safetensors file, or a hub name like owner/model."
        )
    if len(text) > MAX_NAME or text != _printable(text):
        raise StudioError(f"A model's name is at most {MAX_NAME} plain letters, got {_printable(text)[:60]!r}.")
    if text == EMBEDDED:
        return text
    path = Path(text).expanduser()
    is_path = text.startswith(("/", "~", ".")) or path.exists()
    return str(path.absolute().resolve()) if is_path else text


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def _place(name: str) -> str:
    if name == EMBEDDED:
        return "embedded"
    path = Path(name)
    if not path.is_absolute():
        return "hub"
    return "file" if path.is_file() or path.suffix.lower() in (".safetensors", ".ckpt", ".bin", ".pt") else "folder"


_FAMILY_WORDS = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}


def _from_facts(name: str, facts: dict[str, Any]) -> Base:
    return Base(name, shown_name(name), facts["family"], _place(name), int(facts["size"]), False, facts["note"])


def _from_row(row: sqlite3.Row) -> Base:
    note = _missing(row["name"], row["place"])
    return Base(
        row["name"], row["label"], row["family"], row["place"], row["size"], bool(note), note or str(row["note"])
    )


def _missing(name: str, place: str) -> str:
    """What is to be said of a base that went away; empty while it is here. Looks at names alone: a page asks often."""
    path = Path(name)
    if place == "file" and not path.is_file():
        return f"The file {path.name} is gone. Put it back where it was, or add it where it is now."
    if place == "folder" and not (path / "model_index.json").is_file():
        return f"The folder {path.name} is gone, or holds no model any more. Put it back, or add it where it is now."
    if place == "hub" and not _hub_cache(name).is_dir():
        return f"The download of {name} is gone from this machine's cache. Add it again, with a download."
    return ""


def _hub_cache(name: str) -> Path:
    """Where the hub's client keeps a model. Asked of the client, this would import it into the server."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(cache).expanduser() / f"models--{name.replace('/', '--')}" / "snapshots"
