"""Files that came with a request: only what was uploaded, or written out in it, is ever opened."""

import base64
import binascii
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dora_diffusion.errors import StudioError

MAX_FILES = 100
MAX_BYTES = 25_000_000
_WRITTEN_OUT = re.compile(r"data:image/(jpeg|png|webp);base64,")
_HOW = "Upload it first, as gradio_client.handle_file does, or write it out as data:image/jpeg;base64,…"


@contextmanager
def received(files: Any, folder: Path) -> Iterator[list[Path]]:
    """The files of a request; those that were written out in it are gone afterwards.

    Args:
        files: a list; of each file what an upload answers (a text, or a mapping with "path"), or a data: address.
            It comes from outside, so it may be anything.
        folder: where uploads are stored.

    Raises:
        StudioError: something else was named, an address of the net or a file of this machine for example.
    """
    if not isinstance(files, list | tuple):
        raise StudioError(f"Photos are given as a list of files, got {str(files)[:80]!r}.")
    if len(files) > MAX_FILES:
        raise StudioError(f"At most {MAX_FILES} files at a time, got {len(files)}.")
    with TemporaryDirectory(dir=folder, prefix="given-") as written:
        yield [_one(file, folder, Path(written)) for file in files]


def _one(file: Any, folder: Path, written: Path) -> Path:
    if isinstance(file, str) and file.startswith("data:"):
        return _written_out(file, written)
    named: Any = file.get("path") if isinstance(file, Mapping) else file
    try:
        path = Path(named).resolve()
        is_ours = path.is_relative_to(folder.resolve()) and path.is_file()
    except (TypeError, ValueError, OSError):
        is_ours = False
    if not is_ours:
        raise StudioError(f"{str(named)[:80]!r} was not uploaded here. {_HOW}")
    return path


def _written_out(address: str, written: Path) -> Path:
    head = _WRITTEN_OUT.match(address)
    if head is None:
        raise StudioError(f"A file that is written out begins with data:image/jpeg;base64, got {address[:40]!r}.")
    if len(address) > MAX_BYTES * 4 // 3 + 100:
        raise StudioError(f"A file has at most {MAX_BYTES // 1_000_000} MB.")
    try:
        content = base64.b64decode(address[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise StudioError("A file that is written out is not base64.") from error
    path = written / f"{secrets.token_hex(8)}.{head[1]}"
    path.write_bytes(content)
    return path
