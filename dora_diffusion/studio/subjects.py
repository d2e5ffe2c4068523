"""Subjects: who is taught, in which words, from which photos, and which adapter stands for it now."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.errors import StudioError
from dora_diffusion.registry import did_you_mean
from dora_diffusion.studio.album import Album, PhotoNote
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.disk import told
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.intake import check_count, check_noun, check_trigger, check_words, slug
from dora_diffusion.studio.job_files import adapter_file
from dora_diffusion.studio.observe import UNFINISHED
from dora_diffusion.studio.samples import SAMPLES, sample_photos

__all__ = ["PhotoNote", "Subject", "Subjects"]

TRASH_S = 7 * 24 * 3600.0


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
        return f"{self.trigger} {self.class_noun}".strip()

    @property
    def is_draft(self) -> bool:
        """Whether nobody has said yet what it is."""
        return not self.class_noun


# Inside ``Subjects`` the name ``list`` is a method.
Listed = list[Subject]
Notes = list[PhotoNote]
Files = list[Path]
Words = list[str]


class Subjects:
    """The subjects of one home.

    Args:
        bases: names of the base models that are there.
        resolution_of: side in pixels of the pictures that a base is trained with.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        bases: Callable[[], Sequence[str]] = lambda: ("toybox",),
        resolution_of: Callable[[str], int] = lambda base: 128,
    ):
        self._home, self._database = home, database
        self._bases, self._resolution_of = bases, resolution_of
        self._album = Album(home, database)

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
        check_count(len(photos))
        noun = check_noun(class_noun)
        subject = self._insert(name.strip() and check_words("name", name), noun, trigger, base)
        try:
            refused = self._album.add(subject.id, photos, self._resolution_of(base))
            if refused:
                raise StudioError(" ".join(refused))
        except BaseException:
            self._forget(subject.id)
            raise
        return subject

    def draft(self, base: str = "toybox") -> Subject:
        """A subject that has no words and photos yet: ``update`` and ``add_photos`` give it some."""
        return self._insert("", "", "", base)

    def latest_draft(self) -> Subject | None:
        """The draft that was worked on last, if any: what a page goes on with."""
        row = self._database.row(
            "select * from subjects where deleted is null and class_noun = '' order by worked_on desc, rowid desc"
        )
        return _subject(row) if row else None

    def samples(self) -> Words:
        """Names of the sample subjects: teapot, backpack, robot."""
        return [name for name in SAMPLES if sample_photos(name)]

    def create_from_sample(self, name: str) -> Subject:
        """Make a subject from a sample's photos.

        Raises:
            StudioError: there is no such sample.
        """
        if name not in SAMPLES:
            raise StudioError(
                f"There is no sample subject {str(name)[:40]!r}; there are {', '.join(SAMPLES)}."
                f"{did_you_mean(str(name), list(SAMPLES))}"
            )
        return self.create(sample_photos(name), "", name)

    def get(self, id: str) -> Subject:
        """The subject called ``id``, also a deleted one.

        Raises:
            StudioError: there is none.
        """
        row = self._database.row("select * from subjects where id = ?", (self._home.check_id("subject", id),))
        if row is None:
            raise StudioError(f"There is no subject called {id}.")
        return _subject(row)

    def list(self) -> Listed:
        """All that are not deleted and no drafts; the one that was worked on last comes first."""
        rows = self._database.rows(
            "select * from subjects where deleted is null and class_noun != '' order by worked_on desc, rowid desc"
        )
        return [_subject(row) for row in rows]

    def photos(self, id: str) -> Notes:
        """Its photos, in order."""
        return self._album.notes(self.get(id).id)

    def photo_files(self, id: str) -> Files:
        """The stored photos, in order, for a training to link."""
        return self._album.files(self.get(id).id)

    def add_photos(self, id: str, paths: Sequence[Path]) -> Words:
        """Add photos. Returns: what was refused and why, a sentence each; the good ones are kept.

        Raises:
            StudioError: there would be too many.
        """
        subject = self._undeleted(id)
        return self._album.add(id, paths, self._resolution_of(subject.base))

    def remove_photo(self, id: str, name: str) -> None:
        """Remove the photo stored as ``name``. Trainings that were started with it keep theirs.

        Raises:
            StudioError: there is none.
        """
        subject = self._undeleted(id)
        self._album.remove(id, name, self._resolution_of(subject.base))

    def update(
        self,
        id: str,
        name: str | None = None,
        class_noun: str | None = None,
        trigger: str | None = None,
        base: str | None = None,
    ) -> Subject:
        """Change what is given. Trainings that were started before keep their words.

        Raises:
            StudioError: a word is none, or the base is not there.
        """
        before = self._undeleted(id)
        given = {
            "name": None if name is None else check_words("name", name),
            "class_noun": None if class_noun is None else check_noun(class_noun),
            "trigger": None if trigger is None else check_trigger(trigger),
            "base": None if base is None else self._check_base(base),
        }
        changes = {key: value for key, value in given.items() if value is not None}
        if before.is_draft and "class_noun" in changes and "name" not in changes and not before.name:
            changes["name"] = self._free_name(changes["class_noun"])
        if changes:
            assignments = ", ".join(f"{key} = :{key}" for key in changes)
            with self._database.transaction() as connection:
                connection.execute(f"update subjects set {assignments} where id = :id", {**changes, "id": id})
                self._touch(connection, id)
        after = self.get(id)
        if self._resolution_of(after.base) != self._resolution_of(before.base):
            self._album.check(id, self._resolution_of(after.base))
        return after

    def rename(self, id: str, name: str) -> Subject:
        """Change the name; the id stays."""
        return self.update(id, name=name)

    def delete(self, id: str, typed_name: str) -> None:
        """Move a subject to the trash, for 7 days.

        Raises:
            StudioError: it is trained or waits for it, or the typed name is another.
        """
        subject = self._undeleted(id)
        if " ".join(str(typed_name).split()) != subject.name:
            raise StudioError(f"To delete it, type its name exactly: {subject.name}")
        now = time.time()
        with self._database.transaction() as connection:
            busy = connection.execute(
                f"select 1 from jobs where subject_id = ? and state in {UNFINISHED}", (id,)
            ).fetchone()
            if busy:
                raise StudioError(f"{subject.name} is being trained, or waits for it. Cancel that first.")
            trashed = f"{id}-{int(now)}"
            connection.execute("update subjects set deleted = ?, trashed = ? where id = ?", (now, trashed, id))
        with told("move it to the trash"):
            self._move(self._places(id, trashed))

    def restore(self, id: str) -> Subject:
        """Undo ``delete``.

        Raises:
            StudioError: it is not in the trash.
        """
        row = self._database.row("select * from subjects where id = ?", (self._home.check_id("subject", id),))
        if row is None or row["deleted"] is None:
            raise StudioError(f"There is no subject called {id} in the trash.")
        self._database.check_writable()
        with told("bring it back"):
            self._move({there: here for here, there in self._places(id, row["trashed"]).items()})
        shutil.rmtree(self._home.trash / row["trashed"], ignore_errors=True)
        with self._database.transaction() as connection:
            connection.execute("update subjects set deleted = null, trashed = null where id = ?", (id,))
            self._touch(connection, id)
        return self.get(id)

    def deleted(self) -> Listed:
        """Those in the trash, the last one first."""
        rows = self._database.rows("select * from subjects where deleted is not null order by deleted desc")
        return [_subject(row) for row in rows]

    def purge(self, now: float) -> Words:
        """End what has been in the trash for 7 days. Returns: the ids of the subjects that are gone."""
        rows = self._database.rows("select id from subjects where deleted < ?", (now - TRASH_S,))
        for row in rows:
            self._forget(row["id"])
        return [row["id"] for row in rows]

    def adapter(self, id: str) -> Path | None:
        """The file that stands for the subject: the chosen checkpoint's, else the newest finished training's."""
        subject = self.get(id)
        if subject.chosen_job is not None:
            chosen = adapter_file(self._home.path_of("job", subject.chosen_job), subject.chosen_step)
            if chosen is not None:
                return chosen
        rows = self._database.rows(
            "select number from jobs where subject_id = ? and state = 'done' order by number desc", (id,)
        )
        for row in rows:
            file = adapter_file(self._home.path_of("job", f"job-{row['number']}"), None)
            if file is not None:
                return file
        return None

    def choose(self, id: str, job_id: str, step: int | None) -> None:
        """Let a checkpoint of one of its trainings stand for it; ``step`` None: that training's end.

        Raises:
            StudioError: the training is not the subject's, or has no such checkpoint.
        """
        subject = self._undeleted(id)
        number = self._home.check_id("job", job_id).removeprefix("job-")
        found = self._database.row("select 1 from jobs where number = ? and subject_id = ?", (number, id))
        if not found or adapter_file(self._home.path_of("job", job_id), step) is None:
            what = "its last step" if step is None else f"step {step}"
            raise StudioError(f"{subject.name} has no checkpoint of {what} in {job_id}. Load the page again.")
        with self._database.transaction() as connection:
            connection.execute("update subjects set chosen_job = ?, chosen_step = ? where id = ?", (job_id, step, id))
            self._touch(connection, id)

    def _insert(self, name: str, noun: str, trigger: str, base: str) -> Subject:
        """A new row and folder. The folder is made first: its name says whether the id is free."""
        word, known = check_trigger(trigger), self._check_base(base)
        self._database.check_writable()
        start, number = slug(name or noun), 1
        while True:
            id = f"{start}-{number}"
            number += 1
            try:
                with told("make a folder for it"):
                    self._home.path_of("subject", id).mkdir(mode=0o700)
            except StudioError as error:
                if isinstance(error.__cause__, FileExistsError):
                    continue
                raise
            now = time.time()
            named = name or (self._free_name(noun) if noun else "")
            try:
                with self._database.transaction() as connection:
                    connection.execute(
                        "insert into subjects (id, name, class_noun, trigger, base, created, worked_on) "
                        "values (?, ?, ?, ?, ?, ?, ?)",
                        (id, named, noun, word, known, now, now),
                    )
            except sqlite3.IntegrityError:  # it is in the trash
                self._home.path_of("subject", id).rmdir()
                continue
            return self.get(id)

    def _free_name(self, noun: str) -> str:
        """The noun and the smallest number that no subject has."""
        taken = {row["name"] for row in self._database.rows("select name from subjects")}
        return next(f"{noun} {n}" for n in range(1, len(taken) + 2) if f"{noun} {n}" not in taken)

    def _forget(self, id: str) -> None:
        """Delete a subject for good: rows, photos, trainings, pictures."""
        row = self._database.row("select trashed from subjects where id = ?", (id,))
        jobs = self._database.rows("select number from jobs where subject_id = ?", (id,))
        folders = [*self._places(id, ""), self._home.media_of("pictures", id)]
        for job in (f"job-{found['number']}" for found in jobs):
            folders += [self._home.path_of("job", job), self._home.media_of("previews", job)]
        for export in self._database.rows("select number from exports where subject_id = ?", (id,)):
            folders.append(self._home.path_of("export", f"export-{export['number']}"))
        if row is not None and row["trashed"]:
            folders.append(self._home.trash / row["trashed"])
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        with self._database.transaction() as connection:
            connection.execute("delete from subjects where id = ?", (id,))

    def _places(self, id: str, trashed: str) -> dict[Path, Path]:
        """Where a subject's photos lie, and where in the trash they go."""
        trash = self._home.trash / trashed
        return {
            self._home.path_of("subject", id): trash / "subject",
            self._home.media / "photos" / id: trash / "shown",
            self._home.media / "thumbs" / id: trash / "thumbs",
        }

    @staticmethod
    def _move(places: dict[Path, Path]) -> None:
        for source, target in places.items():
            if not source.is_dir():
                continue
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                source.replace(target)
                continue
            # What was being drawn when its subject went made the folder anew: what lies there stays, the rest joins it.
            for found in source.iterdir():
                if not (target / found.name).exists():
                    found.replace(target / found.name)

    def _undeleted(self, id: str) -> Subject:
        subject = self.get(id)
        if subject.deleted is not None:
            raise StudioError(f"{subject.name} is in the trash. Restore it first.")
        self._database.check_writable()
        return subject

    def _check_base(self, base: str) -> str:
        known = list(self._bases())
        if base not in known:
            raise StudioError(
                f"The base model {str(base)[:80]!r} is not in the studio; it has {', '.join(known)}. Add it first."
            )
        return base

    @staticmethod
    def _touch(connection: sqlite3.Connection, id: str) -> None:
        connection.execute("update subjects set worked_on = ? where id = ?", (time.time(), id))


def _subject(row: sqlite3.Row) -> Subject:
    names = ("id", "name", "class_noun", "trigger", "base", "created", "deleted", "chosen_job", "chosen_step")
    return Subject(**{name: row[name] for name in names})
