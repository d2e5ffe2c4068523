"""Pictures: drawn by the workshop, each a file and a row before it is shown; history; settings read back from files."""

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

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.bases import Bases
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.jobs import Jobs
from dora_diffusion.studio.lookup import Lookup, Request
from dora_diffusion.studio.orders import Order, one_by_one
from dora_diffusion.studio.picture_settings import read_picture
from dora_diffusion.studio.subjects import Subjects
from dora_diffusion.studio.workshop import StoppedError, Workshop

OnStep = Callable[[int, int], None]
Say = Callable[[str, Any], None]
Work = Callable[[Say, threading.Event], None]
MAX_PAGE = 200
ALONE = ""  # instead of a subject's id: of the bases alone
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
        self._lookup = Lookup(home, database, subjects, jobs, bases)

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
        request = self._lookup.request(order)
        self._database.check_writable()
        return self._relayed(partial(self._draw_all, request), on_step, stop)

    def looked_up(self, order: Order) -> Request:
        """The order as it would be drawn: tidied, with a seed, and everything that it names.

        Raises:
            StudioError: it cannot be drawn.
        """
        return self._lookup.request(order)

    def draw_into(
        self, order: Order, path: Path, thumb: Path, stop: threading.Event | None, on_step: OnStep | None = None
    ) -> None:
        """Draw one picture into files outside of the history; its first, where the order is for several.

        Raises:
            StoppedError: ``stop`` was set.
            StudioError: drawing failed.
        """
        request = self._lookup.request(order)

        def listen(event: Mapping[str, Any]) -> None:
            if event["event"] == "step" and on_step is not None:
                on_step(event["done"], event["total"])
            if event["event"] == "picture":
                with self._database.transaction() as connection:
                    _note_time(connection, request.order, event)

        files = [{"seed": request.order.seed, "path": str(path), "thumb": str(thumb)}]
        self._workshop.call("draw", request.arguments(files), listen, stop)

    def seconds_for(self, order: Order) -> float | None:
        """About what drawing takes, as measured here; None where nothing like it was drawn yet."""
        row = self._database.row("select seconds from measurements where key = ?", [_time_key(order)])
        return None if row is None else order.num_images * order.num_inference_steps * float(row["seconds"])

    def history(self, subject_id: str | None = None, limit: int = 24, offset: int = 0) -> list[Picture]:
        """The newest first; of one subject, of the bases ``ALONE``, or (None) of all."""
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
        if not found.is_ours:
            return found.order, list(found.notes)
        order, notes = self._lookup.found_again(found.order, found.facts)
        return order, [*found.notes, *notes]

    def again(self, picture_id: int) -> tuple[Order, list[str]]:
        """What draws a picture of the history again, and notes on what of it is not here any more.

        Raises:
            StudioError: there is no such picture, or its file is gone.
        """
        return self.read(self.get(picture_id).path)

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
        work: Work,
        on_step: OnStep | None,
        stop: threading.Event | None,
    ) -> Iterator[Picture]:
        """What ``work`` puts out in a thread of its own: whoever iterates may be slow, or never come back."""
        own_stop = threading.Event()
        try:
            for kind, value in _put_out(work, own_stop):
                if stop is not None and stop.is_set():
                    own_stop.set()
                if kind == "step" and on_step is not None:
                    on_step(*value)
                elif kind == "picture":
                    yield value
        finally:
            own_stop.set()

    def _draw_all(self, request: Request, say: Say, stop: threading.Event) -> None:
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

        try:
            self._workshop.call("draw", request.arguments(files), listen, stop)
        finally:
            self._database.close()  # this thread's, which ends here

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
        if subject_id == ALONE:
            return "subject_id is null", []
        return "subject_id = ?", [self._home.check_id("subject", subject_id)]


def _put_out(work: Work, stop: threading.Event) -> Iterator[tuple[str, Any]]:
    """What ``work`` says in a thread of its own, and ("", None) now and then while it says nothing."""
    said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def go() -> None:
        try:
            work(lambda kind, value: said.put((kind, value)), stop)
            said.put(("end", None))
        except StoppedError:
            said.put(("end", None))
        except BaseException as error:
            said.put(("end", error))

    threading.Thread(target=go, name="drawing", daemon=True).start()
    while True:
        try:
            kind, value = said.get(timeout=_LOOK_S)
        except queue.Empty:
            kind, value = "", None
        if kind == "end":
            if value is not None:
                raise value
            return
        yield kind, value


def _note_time(connection: sqlite3.Connection, order: Order, event: Mapping[str, Any]) -> None:
    """Remember what a sampling step takes, the latest counting a third."""
    seconds = event["seconds"] / order.num_inference_steps
    for key in {_time_key(order), _time_key(replace(order, width=event["width"], height=event["height"]))}:
        connection.execute(
            """
            insert into measurements (key, created, seconds, memory_gib, total_gib, device)
            values (?, ?, ?, 0, 0, '') on conflict (key) do update
            set seconds = (2 * seconds + excluded.seconds) / 3, created = excluded.created
            """,
            [key, time.time(), seconds],
        )


def _time_key(order: Order) -> str:
    return f"draw {order.base} {order.width or '-'}x{order.height or '-'}"
