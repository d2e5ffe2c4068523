"""The studio's folder: where everything lies, and the rule that nothing outside of it is ever named by an id."""

import fcntl
import os
import re
from pathlib import Path
from typing import Literal

from dora_diffusion.errors import MachineError, StudioError

ID_RULE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
Kind = Literal["subject", "job", "export"]
_FOLDERS: dict[str, str] = {"subject": "subjects", "job": "jobs", "export": "media/exports"}
_MADE = ("subjects", "jobs", "media", "trash", "tmp")


class InstanceLock:
    """Held by the one server that schedules; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def close(self) -> None:
        """Let another instance schedule."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Home:
    """The folders of one studio, made on first use, for their owner's eyes only.

    Args:
        path: ``subjects/``, ``jobs/`` and ``trash/`` are never served; ``media/`` is all that a page may show.

    Raises:
        MachineError: the folder cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path.expanduser().absolute()
        try:
            for folder in (self.path, *(self.path / name for name in _MADE)):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise MachineError(
                f"The studio cannot write in {self.path} ({error.strerror}). Set DORA_HOME to a folder of yours."
            ) from error

    @property
    def database_file(self) -> Path:
        return self.path / "studio.db"

    @property
    def log_file(self) -> Path:
        return self.path / "app.log"

    @property
    def media(self) -> Path:
        return self.path / "media"

    @property
    def trash(self) -> Path:
        return self.path / "trash"

    @property
    def tmp(self) -> Path:
        return self.path / "tmp"

    def check_id(self, kind: str, id: object) -> str:
        """``id``, if it is shaped like one.

        Args:
            kind: what it names, as the message says it: "subject", "job", "export", ...

        Raises:
            StudioError: it is not.
        """
        if not isinstance(id, str) or not ID_RULE.fullmatch(id):
            raise StudioError(f"The id of a {kind} is made of a-z, 0-9 and dashes, at most 64; got {str(id)[:80]!r}.")
        return id

    def path_of(self, kind: Kind, id: str) -> Path:
        """The folder of a subject, job or export, which need not exist.

        Raises:
            StudioError: the id is none, or its folder lies elsewhere (a link that somebody made).
        """
        return self._inside(self.path / _FOLDERS[kind], kind, id)

    def media_of(self, what: str, id: str) -> Path:
        """``media/<what>/<id>``, made: "photos", "thumbs", "previews", "pictures", ...

        Raises:
            StudioError: as for ``path_of``.
        """
        folder = self._inside(self.media / what, what, id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def instance_lock(self) -> InstanceLock | None:
        """The right to schedule; None while another instance has it."""
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return InstanceLock(descriptor)

    def _inside(self, root: Path, kind: str, id: str) -> Path:
        folder = root / self.check_id(kind, id)
        if folder.is_symlink() or folder.resolve().parent != root.resolve():
            raise StudioError(f"There is no {kind} called {id}.")
        return folder
