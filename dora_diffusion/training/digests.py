"""What a run learns from, in digests: one to tell whether anything changed, and one a file to tell which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path


@dataclass(frozen=True)
class Digests:
    """Of several files, or texts.

    Attributes:
        together: of everything, in order; None where there is nothing to be held to.
        each: of each, by the name that a message calls it by.
    """

    together: str | None
    each: Mapping[str, str] = field(default_factory=dict)


NOTHING = Digests(None)


def digests_of_files(paths: Sequence[Path]) -> Digests:
    """Of the files' bytes; a name counts only in what is told."""
    together, each = blake2b(digest_size=8), {}
    for path in paths:
        content = path.read_bytes()
        together.update(content)
        each[path.name] = _digest(content)
    return Digests(together.hexdigest(), each)


def digests_of_texts(texts: Sequence[str], places: Sequence[str]) -> Digests:
    """Of texts that lie at these places."""
    each = {place: _digest(text.encode()) for place, text in zip(places, texts, strict=True)}
    return Digests(_digest("\n".join(texts).encode()), each)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()
