"""From what a user gives to what a training run needs: words checked, photos cleaned, settings written."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from dora_diffusion.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from dora_diffusion.config.files import dump_yaml
from dora_diffusion.errors import DataError, StudioError
from dora_diffusion.studio.disk import write_text

MAX_PHOTOS = 50
PRESET = "toybox-balanced"


def write_config(folder: Path, class_noun: str, trigger: str, steps: int) -> None:
    """Write the settings that the page trains with, the preset's; the subject exists from here on.

    Checkpoints every 50 steps: a run that the machine ends loses less than a minute.

    Raises:
        ConfigError: ``steps`` is no number of steps.
    """
    config = TrainConfig(
        preset=PRESET,
        model=ModelConfig(pretrained_model_name_or_path="toybox"),
        data=DataConfig(instance_data_dir=folder / "photos", trigger=trigger, class_noun=class_noun),
        run=RunConfig(
            output_dir=folder / "run",
            max_train_steps=steps,
            checkpointing_steps=50,
            checkpoints_total_limit=2,
        ),
    )
    write_text(folder / "config.yaml", dump_yaml(config))


def check_words(class_noun: str, trigger: str) -> tuple[str, str]:
    """Class noun and trigger, tidied; a trigger left out is ``sks``.

    Raises:
        StudioError: one is missing, too long, or not plain words.
    """
    noun, word = " ".join(class_noun.split()), trigger.strip() or "sks"
    if not noun:
        raise StudioError("What is it? Write one or two words, for example: teapot, dog, backpack.")
    if len(noun) > 60 or not noun.isprintable():
        raise StudioError(f"What is it? At most 60 letters in plain words, got {len(noun)}. Shorten it.")
    if len(word) > 32 or not word.isprintable() or " " in word:
        raise StudioError(
            f"The trigger word is one rare word of at most 32 letters, got {word[:40]!r}. Leave it empty for 'sks'."
        )
    return noun, word


def store_photos(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Open every photo by its content and write it again, upright, as JPEG without EXIF, place or any other attachment.

    Returns: the files written, in the order of ``paths``.

    Raises:
        StudioError: some are no pictures; the message names each of those.
    """
    # numpy and the decoders are heavy, and the page must come up before the first photo does
    from dora_diffusion.data.photos import open_photo

    folder.mkdir(parents=True, exist_ok=True)
    stored, refused = [], []
    for number, path in enumerate(paths, 1):
        file = folder / f"{number:02d}.jpg"
        try:
            open_photo(path).save(file, quality=95, subsampling=0)
        except DataError as error:
            refused.append(str(error))
        stored.append(file)
    if refused:
        raise StudioError(" ".join(refused))
    return stored


def check_count(paths: Sequence[Path]) -> None:
    """Raise StudioError unless there are 1 to 50 photos."""
    if not paths:
        raise StudioError(
            "Add photos of your subject first: three to twenty, from different sides and in different places."
        )
    if len(paths) > MAX_PHOTOS:
        raise StudioError(f"At most {MAX_PHOTOS} photos, got {len(paths)}. Three to twenty good ones are enough.")


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        StudioError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StudioError(f"{path.name} cannot be read ({error.strerror}). Add it again.") from error


def slug(words: str) -> str:
    """``words`` as the beginning of a subject's id: lower-case letters, digits and single dashes, at most 48."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:48].strip("-") or "subject"
