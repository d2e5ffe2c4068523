"""Pictures: drawn by the workshop, each a file and a row before it is shown; history; settings read back from files."""

import hashlib
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dora_diffusion import __version__
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.bases import Bases, shown_name
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.intake import slug
from dora_diffusion.studio.jobs import Jobs
from dora_diffusion.studio.orders import MAX_PICTURES, MAX_SEED, MAX_STRENGTH, Order, checked, decided, one_by_one
from dora_diffusion.studio.picture_settings import read_picture
from dora_diffusion.studio.prompts import written_out
from dora_diffusion.studio.subjects import Subject, Subjects
from dora_diffusion.studio.workshop import StoppedError, Workshop

__all__ = ["MAX_PICTURES", "MAX_SEED", "MAX_STRENGTH", "Picture", "Pictures"]

OnStep = Callable[[int, int], None]
MAX_PAGE = 200
_LOOK_S = 0.1  # how often it is asked whether somebody wants to stop
_SHOWN = "(subject_id is null or subject_id in (select id from subjects where deleted is null))"


@dataclass(frozen=True)
class Picture:
    """One picture that was drawn.

    Args:
        path: a PNG in ``media/pictures``, with its settings inside.
        thumb: a JPEG of at most 256 pixels a side.
        created: UTC seconds.
        order: what draws it again: one picture, with its own seed and size.
        sent: the prompt as the model got it.
    """

    id: int
    path: Path
    thumb: Path
    created: float
    order: Order
    sent: str


@dataclass(frozen=True)
class Request:
    """An order with everything looked up that it names.

    Args:
        adapter: None draws the base alone.
        sent: the prompt as the model gets it.
        folder: name of the folder in ``media/pictures`` that such pictures belong to.
    """

    order: Order
    subject: Subject | None
    adapter: Path | None
    sent: str
    folder: str


class Pictures:
    """Draws, and keeps what it drew.

    Args:
        subjects, jobs: tell names, triggers and adapters.
        bases: tell what is here.
    """

    def __init__(
        self, home: Home, database: Database, subjects: Subjects, jobs: Jobs, bases: Bases, workshop: Workshop
    ):
        self._home, self._database, self._workshop = home, database, workshop
        self._subjects, self._jobs, self._bases = subjects, jobs, bases

    def draw(
        self, order: Order, on_step: OnStep | None = None, stop: threading.Event | None = None
    ) -> Iterator[Picture]:
        """Each picture as soon as it is a file and a row. Stopped, it ends after those that were finished.

        Checks come with the call, before anything is drawn.

        Args:
            on_step: (sampling steps done, of all pictures), in the thread that iterates.

        Raises:
            StudioError: a setting is out of range, the subject has nothing trained yet, or drawing failed.
        """
        request = self.request(order)
        self._database.check_writable()
        return self._relayed(partial(self._draw_all, request), on_step, stop)

    def request(self, order: Order) -> Request:
        """The order, checked, with a seed, and with everything looked up that it names.

        Raises:
            StudioError: it cannot be drawn.
        """
        order = decided(checked(order))
        if order.subject_id is None:
            self._check_base(order.base)
            return Request(replace(order, job_id=None, step=None), None, None, order.prompt, _base_folder(order.base))
        subject = self._subjects.get(order.subject_id)
        if subject.deleted is not None:
            raise StudioError(f"{subject.name} is in the trash. Restore it first.")
        order = replace(order, base=self._trained_on(subject, order.job_id))
        self._check_base(order.base)
        adapter = self._adapter(subject, order)
        return Request(order, subject, adapter, written_out(order.prompt, subject), subject.id)

    def draw_into(
        self, request: Request, path: Path, thumb: Path, stop: threading.Event | None, on_step: OnStep | None = None
    ) -> None:
        """Draw one picture into files outside of the history.

        Raises:
            StoppedError: ``stop`` was set.
            StudioError: drawing failed.
        """

        def listen(event: Mapping[str, Any]) -> None:
            if event["event"] == "step" and on_step is not None:
                on_step(event["done"], event["total"])
            if event["event"] == "picture":
                with self._database.transaction() as connection:
                    _note_time(connection, request.order, event)

        order = replace(request.order, num_images=1)
        files = [{"seed": order.seed, "path": str(path), "thumb": str(thumb)}]
        self._workshop.call("draw", _arguments(request, order, files), listen, stop)

    def seconds_for(self, order: Order) -> float | None:
        """About what drawing takes, as measured here; None where nothing like it was drawn yet."""
        row = self._database.row("select seconds from measurements where key = ?", [_time_key(order)])
        return None if row is None else order.num_images * order.num_inference_steps * float(row["seconds"])

    def history(self, subject_id: str | None = None, limit: int = 24, offset: int = 0) -> list[Picture]:
        """The newest first; of one subject, or of all and the bases too."""
        where, values = self._of(subject_id)
        page = [max(0, min(int(limit), MAX_PAGE)), max(0, int(offset))]
        rows = self._database.rows(
            f"select * from pictures where {where} order by id desc limit ? offset ?",
            [*values, *page],
        )
        return [self._picture(row) for row in rows]

    def count(self, subject_id: str | None = None) -> int:
        """How many pictures the history has."""
        where, values = self._of(subject_id)
        row = self._database.row(f"select count(*) as n from pictures where {where}", values)
        return int(row["n"]) if row else 0

    def get(self, picture_id: int) -> Picture:
        """Raises: StudioError: there is no such picture."""
        is_id = isinstance(picture_id, int) and not isinstance(picture_id, bool) and 0 < picture_id < 2**63
        row = self._database.row("select * from pictures where id = ?", [picture_id]) if is_id else None
        if row is None:
            raise StudioError(f"There is no picture {str(picture_id)[:40]}; it may have been deleted.")
        return self._picture(row)

    def read(self, path: Path) -> tuple[Order, list[str]]:
        """What draws the picture in a file again, and notes on what is not here or could not be taken over.

        Reads our own settings, else A1111's ``parameters`` of any tool.

        Raises:
            StudioError: it is no picture, or says nothing of how it was made.
        """
        found = read_picture(path)
        order, notes = found.order, list(found.notes)
        if not found.is_ours:
            return order, notes
        base = self._bases.called(order.base)
        if base is None or base.is_missing:
            lack = "is not here any more" if base else "is not here"
            notes.append(f"The base {shown_name(order.base)[:60]} {lack}: add it under Teach, or choose another.")
        order = replace(order, base=base.name if base and not base.is_missing else "toybox")
        if order.subject_id is None:
            return order, notes
        subject = self._known_subject(order.subject_id)
        if subject is None:
            name = found.facts.get("subject", "") or order.subject_id
            notes.append(f"The subject {name[:60]!r} is not here; the base alone will draw it.")
            return replace(order, subject_id=None, job_id=None, step=None), notes
        return self._with_adapter(order, subject, found.facts.get("adapter_sha256", ""), notes), notes

    def delete(self, picture_id: int) -> None:
        """Delete a picture, its thumb and its row.

        Raises:
            StudioError: there is no such picture.
        """
        picture = self.get(picture_id)
        with self._database.transaction() as connection:
            connection.execute("delete from pictures where id = ?", [picture_id])
        for file in (picture.path, picture.thumb):
            file.unlink(missing_ok=True)

    def _relayed(
        self,
        work: Callable[[Callable[[str, Any], None], threading.Event], None],
        on_step: OnStep | None,
        stop: threading.Event | None,
    ) -> Iterator[Picture]:
        """What ``work`` puts out in a thread of its own: whoever iterates may be slow, or never come back."""
        said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        own_stop = threading.Event()

        def go() -> None:
            try:
                work(lambda kind, value: said.put((kind, value)), own_stop)
                said.put(("end", None))
            except StoppedError:
                said.put(("end", None))
            except BaseException as error:
                said.put(("end", error))

        thread = threading.Thread(target=go, name="drawing", daemon=True)
        thread.start()
        try:
            while True:
                if stop is not None and stop.is_set():
                    own_stop.set()
                try:
                    kind, value = said.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                if kind == "step" and on_step is not None:
                    on_step(*value)
                if kind == "picture":
                    yield value
                if kind == "end":
                    if value is not None:
                        raise value
                    return
        finally:
            own_stop.set()

    def _draw_all(self, request: Request, say: Callable[[str, Any], None], stop: threading.Event) -> None:
        orders = list(one_by_one(request.order))
        stem = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        pictures, thumbs = (self._home.media_of(what, request.folder) for what in ("pictures", "thumbs"))
        names = [f"{stem}-seed{order.seed}" for order in orders]
        files = [
            {
                "seed": order.seed,
                "path": str(pictures / f"{name}.png"),
                "thumb": str(thumbs / f"{name}.jpg"),
            }
            for order, name in zip(orders, names, strict=True)
        ]

        def listen(event: Mapping[str, Any]) -> None:
            if event["event"] == "step":
                say("step", (event["done"], event["total"]))
            if event["event"] == "picture":
                index = event["index"]
                say("picture", self._keep(request, orders[index], files[index], event))

        self._workshop.call("draw", _arguments(request, request.order, files), listen, stop)

    def _keep(self, request: Request, order: Order, files: Mapping[str, Any], event: Mapping[str, Any]) -> Picture:
        """The row of a picture whose files are there."""
        path, thumb = Path(files["path"]), Path(files["thumb"])
        row = {
            **asdict(replace(order, width=event["width"], height=event["height"])),
            "created": time.time(),
            "words": request.sent,
            "path": str(path.relative_to(self._home.media)),
            "thumb": str(thumb.relative_to(self._home.media)),
        }
        del row["num_images"]
        columns = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        try:
            with self._database.transaction() as connection:
                number = connection.execute(f"insert into pictures ({columns}) values ({marks})", row).lastrowid
                _note_time(connection, order, event)
        except BaseException:  # a file that no row knows of would stay for ever
            path.unlink(missing_ok=True)
            thumb.unlink(missing_ok=True)
            raise
        return self.get(int(number or 0))

    def _picture(self, row: sqlite3.Row) -> Picture:
        order = Order(
            **{name: row[name] for name in Order.__dataclass_fields__ if name != "num_images"},
        )
        media = self._home.media
        return Picture(row["id"], media / row["path"], media / row["thumb"], row["created"], order, row["words"])

    def _of(self, subject_id: str | None) -> tuple[str, list[Any]]:
        if subject_id is None:
            return _SHOWN, []
        return "subject_id = ?", [self._home.check_id("subject", subject_id)]

    def _trained_on(self, subject: Subject, job_id: str | None) -> str:
        """The base of the training whose adapter is meant: the subject may have another by now."""
        wanted = job_id or subject.chosen_job
        rows = self._database.rows(
            "select 'job-' || number as id, base, state from jobs where subject_id = ? order by number desc",
            [subject.id],
        )
        meant = [row for row in rows if row["id"] == wanted] if wanted else [r for r in rows if r["state"] == "done"]
        return str(meant[0]["base"]) if meant else subject.base

    def _adapter(self, subject: Subject, order: Order) -> Path:
        if order.job_id is not None:
            job = self._jobs.get(self._home.check_id("job", order.job_id))
            if job.subject_id != subject.id:
                raise StudioError(f"The training {job.id} is not one of {subject.name}.")
            return self._jobs.adapter(job.id, order.step)
        adapter = self._subjects.adapter(subject.id)
        if adapter is None:
            raise StudioError(f"{subject.name} is not trained yet. Press Train first; pictures come after it.")
        return adapter

    def _check_base(self, name: str) -> None:
        base = self._bases.get(name)
        if base.is_missing:
            raise StudioError(f"{base.label} is not where it was. {base.note}".rstrip())

    def _known_subject(self, subject_id: str) -> Subject | None:
        try:
            subject = self._subjects.get(subject_id)
        except StudioError:
            return None
        return None if subject.deleted is not None else subject

    def _with_adapter(self, order: Order, subject: Subject, digest: str, notes: list[str]) -> Order:
        """The order with the checkpoint it names if that is here, and a note where the adapter is another one."""
        try:
            adapter = self._adapter(subject, order)
        except StudioError:
            if order.job_id is not None:
                notes.append(f"Step {order.step} of {order.job_id} is not here; {subject.name} as it is now is taken.")
                return self._with_adapter(replace(order, job_id=None, step=None), subject, digest, notes)
            notes.append(f"{subject.name} is not trained here yet.")
            return order
        if digest and adapter.is_file() and _sha256(adapter) != digest:
            notes.append(f"{subject.name} was trained again since: the picture will differ.")
        return order


def _arguments(request: Request, order: Order, files: list[dict[str, Any]]) -> dict[str, Any]:
    """What the workshop's task "draw" takes."""
    subject = request.subject
    base = shown_name(order.base)
    remember = {
        "model": base,
        "adapter": subject.id if subject else None,
        "subject_id": subject.id if subject else None,
        "subject": subject.name if subject else None,
        "version": __version__,
        # No path of this machine in a picture that people share.
        "order": {**asdict(order), "base": base, "num_images": 1},
    }
    return {
        "base": order.base,
        "adapter": str(request.adapter) if request.adapter else None,
        "strength": order.strength,
        "prompt": request.sent,
        "negative_prompt": order.negative_prompt,
        "num_inference_steps": order.num_inference_steps,
        "guidance_scale": order.guidance_scale,
        "sampler": order.sampler,
        "width": order.width,
        "height": order.height,
        "files": files,
        "remember": remember,
    }


def _note_time(connection: sqlite3.Connection, order: Order, event: Mapping[str, Any]) -> None:
    """Remember what a sampling step takes, the latest counting a third."""
    seconds = event["seconds"] / order.num_inference_steps
    for key in {_time_key(order), _time_key(replace(order, width=event["width"], height=event["height"]))}:
        connection.execute(
            "insert into measurements (key, created, seconds, memory_gib, total_gib, device) values (?, ?, ?, 0, 0, '') "
            "on conflict (key) do update set seconds = (2 * seconds + excluded.seconds) / 3, created = excluded.created",
            [key, time.time(), seconds],
        )


def _time_key(order: Order) -> str:
    return f"draw {order.base} {order.width or '-'}x{order.height or '-'}"


def _base_folder(base: str) -> str:
    return f"base-{slug(shown_name(base))}"[:64].rstrip("-")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
