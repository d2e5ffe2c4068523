"""Subjects: who is taught, in which words, from which photos, and which adapter stands for it now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.studio.database import Database
from dora_diffusion.studio.home import Home


@dataclass(frozen=True)
class Subject:
    """One subject. Times are UTC seconds. ``chosen_job`` and ``chosen_step``: the checkpoint that stands for it."""

    id: str
    name: str
    class_noun: str
    trigger: str
    base: str
    created: float
    deleted: float | None
    chosen_job: str | None
    chosen_step: int | None

    @property
    def words(self) -> str:
        """What it is called in a prompt: "sks teapot"."""
        return f"{self.trigger} {self.class_noun}"


@dataclass(frozen=True)
class PhotoNote:
    """A photo of a subject: files that a page may show, and what is to be said about it, a sentence each.

    ``name`` is the stored file's ("03.jpg"), ``given_name`` the user's ("IMG_1234.JPG").
    """

    name: str
    given_name: str
    path: Path
    thumb: Path
    findings: tuple[str, ...]


class Subjects:
    """The subjects of one home."""

    def __init__(self, home: Home, database: Database):
        self._home, self._database = home, database

    def create(
        self, photos: Sequence[Path], name: str, class_noun: str, trigger: str = "", base: str = "toybox"
    ) -> Subject:
        """Make a subject from photos and words; nothing is left behind when one of them is refused.

        Args:
            photos: 1 to 100 files, opened by content.
            name: left empty, it is the class noun and a number.
            trigger: left empty, "sks".

        Raises:
            StudioError: the words or the photos cannot be used.
        """
        raise NotImplementedError

    def samples(self) -> list[str]:
        """Names of the sample subjects: teapot, backpack, robot."""
        raise NotImplementedError

    def create_from_sample(self, name: str) -> Subject:
        """Make a subject from a sample's photos.

        Raises:
            StudioError: there is no such sample.
        """
        raise NotImplementedError

    def get(self, id: str) -> Subject:
        """The subject called ``id``, also a deleted one.

        Raises:
            StudioError: there is none.
        """
        raise NotImplementedError

    def list(self) -> "list[Subject]":
        """All that are not deleted; the one that was worked on last comes first."""
        raise NotImplementedError

    def photos(self, id: str) -> "list[PhotoNote]":
        """Its photos, in order."""
        raise NotImplementedError

    def add_photos(self, id: str, paths: Sequence[Path]) -> "list[str]":
        """Add photos. Returns: what was refused and why, a sentence each; the good ones are kept."""
        raise NotImplementedError

    def remove_photo(self, id: str, name: str) -> None:
        """Remove the photo stored as ``name``. Trainings that were started with it keep theirs."""
        raise NotImplementedError

    def update(
        self,
        id: str,
        name: str | None = None,
        class_noun: str | None = None,
        trigger: str | None = None,
        base: str | None = None,
    ) -> Subject:
        """Change what is given."""
        raise NotImplementedError

    def rename(self, id: str, name: str) -> Subject:
        """Change the name; the id stays."""
        raise NotImplementedError

    def delete(self, id: str, typed_name: str) -> None:
        """Move a subject to the trash, for 7 days. Refused while it is trained, or when the typed name is another."""
        raise NotImplementedError

    def restore(self, id: str) -> Subject:
        """Undo ``delete``."""
        raise NotImplementedError

    def adapter(self, id: str) -> Path | None:
        """The file that stands for the subject: the chosen checkpoint's, else the newest finished training's."""
        raise NotImplementedError

    def choose(self, id: str, job_id: str, step: int | None) -> None:
        """Let a checkpoint of one of its trainings stand for it; ``step`` None: that training's end."""
        raise NotImplementedError
