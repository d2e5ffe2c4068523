"""From what a user gives to what the studio keeps: words checked, photos opened by content and written anew."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.errors import DataError, StudioError
from dora_diffusion.studio.disk import told

MAX_PHOTOS = 100
MAX_BYTES = 25_000_000
MAX_PIXELS = 100_000_000  # of one photo
MAX_PIXELS_TOGETHER = 3_000_000_000  # of one upload
MAX_LETTERS, MAX_TRIGGER = 60, 32
NOUN_WORDS = 4  # "a red toy robot" is a name for a thing; a sentence is none, and prompts would be made of it
THUMB = 256
DEFAULT_TRIGGER = "sks"


@dataclass(frozen=True)
class Stored:
    """A photo as it was written. ``digest``: SHA-256 of the file as it was given."""

    name: str
    given_name: str
    width: int
    height: int
    digest: str


def check_words(what: str, words: str, example: str = "") -> str:
    """A name or class noun, tidied.

    Args:
        what: what it is, as the message says it: "name", "class noun".

    Raises:
        StudioError: it is empty, too long, or not plain words.
    """
    tidy = " ".join(str(words).split())
    if not tidy:
        raise StudioError(f"The {what} is missing. {example}".rstrip())
    if len(tidy) > MAX_LETTERS:
        raise StudioError(f"The {what} has at most {MAX_LETTERS} letters, got {len(tidy)}. Shorten it.")
    if not tidy.isprintable() or set("{}") & set(tidy):
        raise StudioError(f"The {what} is made of plain letters, without braces or invisible signs. Write it again.")
    return tidy


def check_noun(words: str) -> str:
    """A class noun, tidied.

    Raises:
        StudioError: as ``check_words``, or it is more than a few words.
    """
    noun = check_words("class noun", words, "What is it? One or two words, for example: teapot, dog, backpack.")
    count = len(noun.split())
    if count > NOUN_WORDS:
        raise StudioError(
            f"What is it? One or two words say it best, and at most {NOUN_WORDS} are taken, got {count}. Write what a "
            "stranger would call it, for example: teapot, dog, toy robot."
        )
    return noun


def check_trigger(word: str) -> str:
    """A trigger word; left empty, "sks".

    Raises:
        StudioError: it is no word.
    """
    tidy = str(word).strip() or DEFAULT_TRIGGER
    if len(tidy) > MAX_TRIGGER or not tidy.isprintable() or len(tidy.split()) != 1 or set("{}") & set(tidy):
        raise StudioError(
            f"The trigger word is one rare word of at most {MAX_TRIGGER} letters, got {tidy[:40]!r}. "
            f"Leave it empty for {DEFAULT_TRIGGER!r}."
        )
    return tidy


def check_count(count: int) -> None:
    """Raise StudioError unless there are 1 to 100 photos."""
    if count < 1:
        raise StudioError(
            "Add photos of your subject first: three to twenty, from different sides and in different places."
        )
    if count > MAX_PHOTOS:
        raise StudioError(f"At most {MAX_PHOTOS} photos, got {count}. Three to twenty good ones are enough.")


def store_photos(paths: Sequence[Path], folder: Path, first: int) -> tuple[list[Stored], list[str]]:
    """Open every photo by its content and write it again, upright, as JPEG without EXIF, place or other attachments.

    Args:
        folder: where "NN.jpg" are written.
        first: the first number.

    Returns: what was stored, and a sentence for each photo that was refused.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stored: list[Stored] = []
    refused: list[str] = []
    pixels = 0
    for path in paths:
        try:
            photo = _store(path, folder, first + len(stored), MAX_PIXELS_TOGETHER - pixels)
        except (DataError, StudioError) as error:
            (folder / f"{first + len(stored):02d}.jpg").unlink(missing_ok=True)  # what a full disk had room for
            refused.append(str(error))
            continue
        pixels += photo.width * photo.height
        stored.append(photo)
    return stored, refused


def make_thumb(photo: Path, thumb: Path) -> None:
    """A small JPEG of a picture, at most 256 pixels a side; one that is there already stays."""
    from PIL import Image

    if thumb.exists():
        return
    with Image.open(photo) as image:
        image.thumbnail((THUMB, THUMB))
        draft = thumb.with_name(f".{thumb.name}")
        image.convert("RGB").save(draft, "JPEG", quality=85)
    draft.replace(thumb)


def slug(words: str) -> str:
    """``words`` as the beginning of an id and of a file name: lower-case letters, digits and single dashes, at most 48.

    Letters lose their marks: without that, a word would lose the letters.
    """
    bare = "".join(
        letter for letter in unicodedata.normalize("NFKD", words.casefold()) if not unicodedata.combining(letter)
    )
    return re.sub(r"[^a-z0-9]+", "-", bare).strip("-")[:48].strip("-") or "subject"


def _store(path: Path, folder: Path, number: int, pixels_left: int) -> Stored:
    # numpy and the decoders are heavy, and the page must come up before the first photo does
    from dora_diffusion.data.photos import open_photo

    name = f"{number:02d}.jpg"
    given = _plain(path.name)
    try:
        size = path.stat().st_size if path.is_file() else -1
    except OSError as error:
        raise StudioError(f"{given} cannot be read ({error.strerror}). Add it again.") from error
    if size < 0:
        raise StudioError(f"{given} cannot be found. Add it again.")
    if size > MAX_BYTES:
        raise StudioError(
            f"{given} has {size / 1e6:.0f} MB, and photos of up to {MAX_BYTES / 1e6:.0f} are taken. Make it smaller."
        )
    picture = open_photo(path, max(1, min(MAX_PIXELS, pixels_left)))
    with told(f"keep {given}"):
        picture.save(folder / name, "JPEG", quality=95, subsampling=0)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Stored(name, given, picture.width, picture.height, digest)


def _plain(name: str) -> str:
    """A file's name as it can be shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:80]
