"""Counts a prompt's tokens as CLIP's tokenizers do, without the libraries that would take the server seconds to load.

All families here read prompts by CLIP's byte-pair encoding, toybox with merges of its own.
"""

import gzip
import json
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_MERGES = _PACKAGE / "models" / "vocabulary" / "clip_merges.txt.gz"
_ENDINGS = ("re", "ve", "ll", "s", "t", "m", "d")  # after an apostrophe, a piece of their own; as CLIP asks, in order
CLIP_LENGTH = 77
MARKS = 2  # one before and one after every prompt


class Tokenizer:
    """Byte-pair encoding by ranked merges.

    Args:
        merges: "a b" or "a b</w>", the most frequent first.
        length: tokens a prompt has at most, its two marks included.
    """

    def __init__(self, merges: list[str], length: int):
        self.length = length
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        self._count = lru_cache(maxsize=4096)(self._tokens_of)

    def count(self, text: str) -> int:
        """How many tokens ``text`` has, with the two marks."""
        return MARKS + sum(self._count(piece) for _, piece in pieces(text))

    def cut(self, text: str) -> str:
        """The end of ``text`` that is beyond the length and is not read; empty if all of it is."""
        left = self.length - MARKS
        for start, piece in pieces(text):
            left -= self._count(piece)
            if left < 0:
                whole, read = unicodedata.normalize("NFC", text), normal(text)
                return (whole if len(whole) == len(read) else read)[start:]
        return ""

    def _tokens_of(self, piece: str) -> int:
        letters = _byte_letters()
        parts = [letters[byte] for byte in piece.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            ranked = [(self._ranks.get(pair), pair) for pair in pairwise(parts)]
            known = [(rank, pair) for rank, pair in ranked if rank is not None]
            if not known:
                break
            parts = _merged(parts, min(known)[1])
        return len(parts)


@lru_cache(maxsize=8)
def tokenizer_of(base: str) -> Tokenizer:
    """The tokenizer of a base model by name: its folder's merges where it is a folder, else CLIP's."""
    folder = (_PACKAGE / "toybox" / "model" if base == "toybox" else Path(base)) / "tokenizer"
    try:
        merges = [line for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines() if line][1:]
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        length = config.get("model_max_length", CLIP_LENGTH)
    except (OSError, ValueError, AttributeError):
        return _clip()
    is_length = isinstance(length, int) and MARKS < length <= 10 * CLIP_LENGTH
    return Tokenizer(merges, length if is_length else CLIP_LENGTH)


@lru_cache(maxsize=1)
def _clip() -> Tokenizer:
    return Tokenizer(gzip.decompress(_MERGES.read_bytes()).decode("utf-8").splitlines(), CLIP_LENGTH)


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Where in the normal form each piece starts and what it is: a run of letters, one digit, a run of anything else.

    What CLIP's ``'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+`` finds.
    """
    text = normal(text)
    at = 0
    while at < len(text):
        end = _end_of_piece(text, at)
        if end > at:
            yield at, text[at:end]
        at = max(end, at + 1)


def normal(text: str) -> str:
    """``text`` as it is taken apart: NFC, in small letters."""
    return unicodedata.normalize("NFC", text).lower()


def _end_of_piece(text: str, at: int) -> int:
    """Where the piece ends that starts at ``at``; there itself where none does."""
    if text[at].isspace():
        return at
    if text[at] == "'":
        rest = text[at + 1 : at + 3]
        ending = next((ending for ending in _ENDINGS if rest.startswith(ending)), None)
        if ending:
            return at + 1 + len(ending)
    kind = _kind(text[at])
    end = at + 1
    while kind != "N" and end < len(text) and not text[end].isspace() and _kind(text[end]) == kind:
        end += 1
    return end


def _kind(letter: str) -> str:
    category = unicodedata.category(letter)[0]
    return category if category in "LN" else "other"


def _merged(parts: list[str], pair: tuple[str, ...]) -> list[str]:
    """``parts`` with every such pair made one."""
    merged: list[str] = []
    at = 0
    while at < len(parts):
        if tuple(parts[at : at + 2]) == pair:
            merged.append(parts[at] + parts[at + 1])
            at += 2
        else:
            merged.append(parts[at])
            at += 1
    return merged


@lru_cache(maxsize=1)
def _byte_letters() -> list[str]:
    """By byte, the letter that merges are written with: its own where that can be printed, else one past 255."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
