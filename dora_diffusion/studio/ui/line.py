"""The line of orders that want to draw: of all pages, one at a time, first come first served, each with its stop."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

LOOK_S = 0.25  # how often a waiting or watching page is told


@dataclass(eq=False)
class Ticket:
    """One order's place in the line: whose page, and its stop."""

    page: str
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Waiting:
    """Not begun: so many orders are served before this one."""

    ahead: int


@dataclass(frozen=True)
class Stopping:
    """Asked to stop, and still at its last step."""


class Line:
    """Which page is served, and which wait. Safe from any thread.

    Orders wait for the drawing process itself in ``workshop._Turns``: that knows no pages, and tells nobody.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[Ticket] = []

    def enter(self, page: str) -> Ticket:
        """A place at the end of the line; give it back with ``leave``."""
        with self._changed:
            ticket = Ticket(page)
            self._tickets.append(ticket)
            return ticket

    def leave(self, ticket: Ticket) -> None:
        with self._changed:
            self._tickets.remove(ticket)
            self._changed.notify_all()

    def ahead(self, ticket: Ticket) -> int:
        """How many are before the ticket; 0 is served."""
        with self._changed:
            return self._tickets.index(ticket)

    def wait(self, ticket: Ticket) -> Iterator[Waiting]:
        """Ends when the ticket is served or stopped; until then tells how many are before it, often enough."""
        while (ahead := self.ahead(ticket)) and not ticket.stop.is_set():
            yield Waiting(ahead)
            with self._changed:
                self._changed.wait(LOOK_S)

    def stop(self, page: str) -> bool:
        """Stop what this page ordered, waiting or served, and nobody else's; whether there was anything."""
        with self._changed:
            mine = [ticket for ticket in self._tickets if ticket.page == page]
            for ticket in mine:
                ticket.stop.set()
            self._changed.notify_all()
            return bool(mine)


def served(line: Line, page: str, work: Callable[[Ticket, Callable[[Any], None]], None]) -> Iterator[Any]:
    """Run ``work(ticket, tell)`` when its turn comes; yields ``Waiting`` until then, then whatever it tells, and
    once ``Stopping`` where a stop does not end it at once.

    The work runs in a thread of its own, so that each step can be told while it is under way. A page that is closed or
    reloaded closes this iterator: its order is stopped, and the next one's turn comes when the work has ended.

    Raises:
        whatever ``work`` raises.
    """
    ticket = line.enter(page)
    told: Queue[Any] = Queue()
    fault: list[BaseException] = []
    try:
        yield from line.wait(ticket)
    except BaseException:
        line.leave(ticket)
        raise

    def run() -> None:
        try:
            if not ticket.stop.is_set():
                work(ticket, told.put)
        except BaseException as error:  # handed to the page's own thread, which raises it
            fault.append(error)
        finally:
            line.leave(ticket)

    worker = threading.Thread(target=run, name="order", daemon=True)
    worker.start()
    try:
        yield from _heard(told, worker, ticket)
    finally:
        ticket.stop.set()
    if fault:
        raise fault[0]


def _heard(told: "Queue[Any]", worker: threading.Thread, ticket: Ticket) -> Iterator[Any]:
    is_stopping = False
    while True:
        alive = worker.is_alive()  # before the queue is read: what was told last is not missed
        if alive and ticket.stop.is_set() and not is_stopping:
            is_stopping = True
            yield Stopping()
        try:
            yield told.get(timeout=LOOK_S if alive else 0.001)
        except Empty:
            if not alive:
                return
