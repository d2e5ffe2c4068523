"""What is said about each photo: read from beside it, or one prompt for all; shuffled and dropped anew each sample."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from dora_diffusion.data.draws import generator, uniform
from dora_diffusion.errors import DataError, some_of

METADATA = "metadata.jsonl"
DEFAULT_COLUMN = "text"

Source = Literal["auto", "sidecar", "metadata", "prompt"]
Origin = Literal["sidecar", "metadata", "prompt"]


@dataclass(frozen=True)
class Captions:
    """One caption a photo, and what a sample gets of it.

    Args:
        texts: by photo.
        dropout: the share of samples that get the empty prompt instead.
        shuffle: put what stands between commas into an order of its own for every sample.
        keep_tags: how many of the first stay where they are.
    """

    texts: tuple[str, ...]
    dropout: float = 0.0
    shuffle: bool = False
    keep_tags: int = 0

    def caption(self, photo: int, seed: int, sample: int) -> str:
        """What sample number ``sample`` of the whole run is called, which shows ``photo``."""
        if self.dropout and uniform(seed, "caption-dropout", sample) < self.dropout:
            return ""
        text = self.texts[photo]
        if not self._is_shuffled(text):
            return text
        tags = _tags(text)
        kept, rest = tags[: self.keep_tags], tags[self.keep_tags :]
        order = torch.randperm(len(rest), generator=generator(seed, "caption-shuffle", sample)).tolist()
        return ", ".join([*kept, *(rest[place] for place in order)])

    def fixed(self) -> list[str]:
        """The captions that can be told before anything is drawn, each once: all but those that are shuffled."""
        fixed = [text for text in self.texts if not self._is_shuffled(text)]
        return list(dict.fromkeys([*fixed, ""] if self.dropout else fixed))

    def _is_shuffled(self, text: str) -> bool:
        return self.shuffle and len(_tags(text)) > self.keep_tags + 1


@dataclass(frozen=True)
class Caption:
    """A photo's caption as it was written down, and where that was found."""

    text: str
    origin: Origin


def find_captions(paths: Sequence[Path], source: Source, column: str | None, prompt: str | None) -> list[Caption]:
    """The caption of each photo, ``{trigger}`` and ``{class}`` still in it.

    A sidecar is a text file beside the photo with its stem (``01.jpg``, ``01.txt``). ``metadata.jsonl`` in the photos'
    folder holds one JSON object a line, with ``file_name`` and the caption under ``column``: the layout that datasets
    calls imagefolder.

    Args:
        source: where to look. "auto": the sidecar, else the metadata file, else the prompt.
        column: the key of a caption in the metadata file, which must be there then, and sidecars are not looked for;
            None: ``text``.
        prompt: what a photo without a caption is called; None: it has none, and is an error.

    Raises:
        DataError: a caption is missing, empty or not UTF-8; the metadata file is not what it should be.
    """
    if source == "prompt":
        return [Caption(_the_prompt(prompt), "prompt") for _ in paths]
    found: dict[Path, Caption] = {}
    if source != "sidecar":
        texts = read_metadata(paths[0].parent, paths, column, required=source == "metadata" or column is not None)
        found |= {path: Caption(text, "metadata") for path, text in texts.items()}
    if source != "metadata" and column is None:
        sidecars = {path: path.with_suffix(".txt") for path in paths if path.with_suffix(".txt").is_file()}
        _refuse_shared(sidecars)
        found |= {path: Caption(_read_sidecar(sidecar), "sidecar") for path, sidecar in sidecars.items()}
    if source != "auto":
        _refuse_missing([path for path in paths if path not in found], source)
    return [found[path] if path in found else Caption(_the_prompt(prompt), "prompt") for path in paths]


def read_metadata(folder: Path, paths: Sequence[Path], column: str | None, required: bool) -> dict[Path, str]:
    """Captions by photo from the folder's ``metadata.jsonl``; none where there is no such file and it is not required.

    Raises:
        DataError: as for ``find_captions``.
    """
    file = folder / METADATA
    if not file.is_file():
        if required:
            raise DataError(
                f'There is no {METADATA} in {folder}: write one JSON object a line, {{"file_name": "01.jpg", '
                f'"{column or DEFAULT_COLUMN}": "a photo of ..."}}, or choose other --captions.'
            )
        return {}
    photos = {path.name: path for path in paths}
    captions: dict[Path, str] = {}
    for number, line in enumerate(_read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{METADATA}, line {number}"
        name, text = _metadata_entry(line, where, column or DEFAULT_COLUMN)
        path = photos.get(name)
        if path is None:
            raise DataError(f"{where} names {name!r}, which is no photo of {folder}. Correct the name or the line.")
        if path in captions:
            raise DataError(f"{where} names {name!r} a second time. Keep one of the lines.")
        captions[path] = text
    return captions


def tell_origins(captions: Sequence[Caption]) -> str:
    """In words: '3 in .txt files, 2 by the prompt'."""
    words: dict[Origin, str] = {"sidecar": "in .txt files", "metadata": f"in {METADATA}", "prompt": "by the prompt"}
    counts = Counter(caption.origin for caption in captions)
    return ", ".join(f"{counts[origin]} {words[origin]}" for origin in words if counts[origin])


def _the_prompt(prompt: str | None) -> str:
    if prompt is None:
        raise DataError("There is no prompt for photos without a caption: give --instance_prompt or --class_noun.")
    return prompt


def _refuse_shared(sidecars: dict[Path, Path]) -> None:
    """``a.jpg`` and ``a.png`` would share ``a.txt``: nobody can tell which of them it describes."""
    for sidecar, count in Counter(sidecars.values()).items():
        if count > 1:
            photos = " and ".join(path.name for path, own in sidecars.items() if own == sidecar)
            raise DataError(f"{sidecar.name} stands beside {photos}: rename one, so that each has its own caption.")


def _refuse_missing(missing: Sequence[Path], source: Source) -> None:
    if missing:
        names = some_of([path.name for path in missing])
        where = "a .txt file beside it" if source == "sidecar" else f"a line in {METADATA}"
        raise DataError(
            f"No caption for {names}: with --captions {source} each photo needs {where}. "
            "Add it, or use --captions auto, which gives the others the prompt."
        )


def _read_sidecar(path: Path) -> str:
    return _one_line(_read_text(path), path.name)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # Notepad marks UTF-8 with three bytes that are no caption
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text (byte {error.start + 1}): save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {(error.strerror or str(error)).lower()}.") from None


def _metadata_entry(line: str, where: str, column: str) -> tuple[str, str]:
    """(file name, caption) of one line."""
    try:
        entry: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}).") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where} must be a JSON object, got {type(entry).__name__}.")
    for key in ("file_name", column):
        if not isinstance(entry.get(key), str):
            raise DataError(
                f"{where} needs {key!r} with a text, and has: {', '.join(map(repr, entry)) or 'nothing'}. "
                "The caption's key is told by --caption_column."
            )
    return entry["file_name"], _one_line(entry[column], where)


def _one_line(text: str, where: str) -> str:
    """The text with every run of white space made one blank.

    Raises:
        DataError: nothing is left.
    """
    line = " ".join(text.split())
    if not line:
        raise DataError(
            f"{where} holds an empty caption: write one, or leave it out. (--caption_dropout trains the empty prompt.)"
        )
    return line


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]
