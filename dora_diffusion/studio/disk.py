"""Small files that two processes share: read without trust, written whole or not at all."""

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dora_diffusion.errors import StudioError

LOG_LIMIT, LOG_KEPT = 2_000_000, 500_000  # bytes
_SECRET = re.compile(r"\b(hf_|sk-|ghp_)[A-Za-z0-9_-]{8,}")


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``; empty when the file is absent, half written or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def tail(path: Path, lines: int) -> str:
    """The last lines of a log that hold anything; each turn of a progress bar is one, and tokens are left out."""
    return "\n".join(_last_lines(path, lines))


def last_line(path: Path, limit: int = 300) -> str:
    """The last line of a log that holds anything, cut to ``limit`` characters."""
    found = _last_lines(path, 1)
    return found[0][:limit] if found else ""


def shorten_log(path: Path) -> None:
    """Keep the end of a log that has become long."""
    try:
        size = path.stat().st_size
        if size > LOG_LIMIT:
            with path.open("rb") as file:
                file.seek(size - LOG_KEPT)
                file.readline()
                kept = file.read()
            path.write_bytes(kept)
    except OSError:
        return


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what the disk refuses inside into a message. ``doing``: "keep the photos", as it follows "cannot".

    Raises:
        StudioError: it did.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise StudioError(f"The studio cannot {doing}: {why.lower()}. Make room on the disk, and try again.") from error


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``; one that is there already stays."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except FileExistsError:  # another thread was faster
        return
    except OSError:  # not every file system has links
        draft = target.with_name(f".{target.name}.{threading.get_ident()}")
        shutil.copyfile(source, draft)
        draft.replace(target)


def _last_lines(path: Path, count: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 400 * count - 8192))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [_SECRET.sub(r"\1…", line) for line in lines[-count:]]
