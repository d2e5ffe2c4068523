"""The subjects in the studio's home: a folder each, with the user's photos and the settings of the training run."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import ConfigError, MachineError, StudioError
from dora_diffusion.studio.disk import read_json, write_text
from dora_diffusion.studio.intake import check_count, check_words, digest, slug, store_photos, write_config

ID_RULE = re.compile(r"^[a-z0-9][a-z0-9-]{0,63}$")
ADAPTER_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Subject:
    """One taught subject: its folder, and what is trained in it."""

    id: str
    folder: Path
    config: TrainConfig

    @property
    def class_noun(self) -> str:
        return self.config.data.class_noun or ""

    @property
    def trigger(self) -> str:
        return self.config.data.trigger

    @property
    def steps(self) -> int:
        return self.config.run.max_train_steps

    @property
    def base(self) -> str:
        return self.config.model.pretrained_model_name_or_path

    @property
    def photos(self) -> list[Path]:
        return sorted((self.folder / "photos").glob("*.jpg"))

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    @property
    def log_file(self) -> Path:
        return self.folder / "trainer.log"

    @property
    def adapter(self) -> Path | None:
        """The trained file, if there is one."""
        file = self.run_folder / ADAPTER_FILE
        return file if file.is_file() else None


def read_subject(folder: Path) -> Subject:
    """The subject in ``folder``.

    Raises:
        StudioError: its settings cannot be read.
    """
    try:
        config = load_yaml(TrainConfig, folder / "config.yaml")
    except ConfigError as error:
        raise StudioError(f"The settings of {folder.name} cannot be read: {error}") from error
    return Subject(folder.name, folder, config)


class SubjectStore:
    """The subjects in a home folder.

    Args:
        home: ``subjects/<id>/`` holds photos/, config.yaml, run/, trainer.log; ``media/`` is all that a page may show.

    Raises:
        MachineError: the folder cannot be written.
    """

    def __init__(self, home: Path):
        self.home = home
        self.media = home / "media"
        self._read: dict[Path, tuple[int, Subject]] = {}
        try:
            for folder in (home, home / "subjects", self.media):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise MachineError(
                f"The studio cannot write in {home} ({error.strerror}). Set DORA_HOME to a folder of yours."
            ) from error

    def create_subject(self, photo_paths: Sequence[Path | str], class_noun: str, trigger: str, steps: int) -> str:
        """Make a subject from photos and words; nothing is left behind when one of them is refused.

        Raises:
            StudioError: the words or the photos cannot be used.
            ConfigError: ``steps`` is no number of steps.
        """
        paths = [Path(path) for path in photo_paths]
        check_count(paths)
        noun, word = check_words(class_noun, trigger)
        folder = self._new_folder(slug(noun))
        try:
            stored = store_photos(paths, folder / "photos")
            digests = [[digest(given), digest(kept)] for given, kept in zip(paths, stored, strict=True)]
            write_text(folder / "photos.json", json.dumps({"digests": digests}))
            write_config(folder, noun, word, steps)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder.name

    def find_subject(self, photo_paths: Sequence[Path | str], class_noun: str, trigger: str, steps: int) -> str | None:
        """The newest subject made from exactly these photos and words, if any: pressing Train again goes on with it.

        A photo counts as the same when it is the user's file or the copy that was stored of it.

        Raises:
            StudioError: the words or the photos cannot be used.
        """
        paths = [Path(path) for path in photo_paths]
        check_count(paths)
        noun, word = check_words(class_noun, trigger)
        given = {digest(path) for path in paths}
        for subject in self.subjects():
            stored = read_json(subject.folder / "photos.json").get("digests", [])
            same_photos = len(stored) == len(paths) and all(given.intersection(pair) for pair in stored)
            if same_photos and (subject.class_noun, subject.trigger, subject.steps) == (noun, word, steps):
                return subject.id
        return None

    def subject(self, subject_id: str) -> Subject:
        """The subject called ``subject_id``.

        Raises:
            StudioError: the id is not one, or there is no such subject.
        """
        if not isinstance(subject_id, str) or not ID_RULE.match(subject_id):
            raise StudioError(
                f"A subject's id is made of a-z, 0-9 and dashes, at most 64; got {str(subject_id)[:80]!r}."
            )
        folder = (self.home / "subjects" / subject_id).resolve()
        if folder.parent != (self.home / "subjects").resolve():
            raise StudioError(f"There is no subject called {subject_id}.")
        return self._cached(folder)

    def subjects(self) -> list[Subject]:
        """All subjects that can be read; the one that was worked on last comes first."""
        found = []
        for folder in sorted((self.home / "subjects").iterdir(), key=last_worked_on, reverse=True):
            try:
                found.append(self.subject(folder.name))
            except StudioError:  # a folder that somebody else made or broke must not take the page away
                continue
        return found

    def shown_photos(self, subject_id: str) -> list[Path]:
        """The subject's photos where a page may show them: links in ``media/``, as the job's folder is never served."""
        subject = self.subject(subject_id)
        shown = self.media / "photos" / subject.id
        shown.mkdir(parents=True, exist_ok=True)
        for photo in subject.photos:
            if not (shown / photo.name).exists():
                _link_or_copy(photo, shown / photo.name)
        return _pictures(shown)

    def _cached(self, folder: Path) -> Subject:
        """Settings are written once, so a page that asks every second need not parse them every second."""
        try:
            written = (folder / "config.yaml").stat().st_mtime_ns
        except OSError:
            raise StudioError(f"There is no subject called {folder.name}.") from None
        cached = self._read.get(folder)
        if cached is None or cached[0] != written:
            cached = self._read[folder] = (written, read_subject(folder))
        return cached[1]

    def _new_folder(self, name: str) -> Path:
        number = 1
        while True:
            folder = self.home / "subjects" / f"{name}-{number}"
            try:
                folder.mkdir(mode=0o700)
                return folder
            except FileExistsError:
                number += 1


def last_worked_on(folder: Path) -> int:
    """When the subject in ``folder`` was made, started or stopped last, in nanoseconds."""
    noted = [path.stat().st_mtime_ns for path in (folder / "job.json", folder / "config.yaml") if path.exists()]
    return max(noted, default=0)


def _pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)
