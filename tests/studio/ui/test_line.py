"""The line of orders: one at a time, first come first served, a stop for each page, nobody left behind by a fault."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.ui.line import Line, Stopping, Ticket, Waiting, served


def counted(steps: int, pause_s: float = 0.01) -> Callable[[Ticket, Callable[[Any], None]], None]:
    def work(ticket: Ticket, tell: Callable[[Any], None]) -> None:
        for step in range(steps):
            if ticket.stop.wait(pause_s):
                return
            tell(step)

    return work


def test_what_the_work_tells_comes_in_order_and_whole() -> None:
    assert list(served(Line(), "page", counted(5))) == [0, 1, 2, 3, 4]


def test_five_pages_are_served_one_after_another_and_told_how_many_are_before_them() -> None:
    line, all_are_here, at_work, most = Line(), threading.Event(), 0, 0
    heard: dict[str, list[Any]] = {name: [] for name in "abcde"}
    guard = threading.Lock()

    def work(ticket: Ticket, tell: Callable[[Any], None]) -> None:
        nonlocal at_work, most
        with guard:
            at_work += 1
            most = max(most, at_work)
        tell("begun")
        all_are_here.wait(10)
        time.sleep(0.02)
        with guard:
            at_work -= 1

    def page(name: str) -> None:
        for event in served(line, name, work):
            heard[name].append(event)

    threads = []
    for name, events in heard.items():  # each comes when the one before it is in line
        threads.append(threading.Thread(target=page, args=(name,)))
        threads[-1].start()
        while not events:
            time.sleep(0.005)
    all_are_here.set()
    for thread in threads:
        thread.join(10)
    assert most == 1
    assert [events[-1] for events in heard.values()] == ["begun"] * 5
    assert [heard[name][0] for name in "bcde"] == [Waiting(ahead) for ahead in (1, 2, 3, 4)]
    assert heard["a"] == ["begun"]


def test_a_stop_ends_this_pages_order_alone() -> None:
    line = Line()
    other = served(line, "other", counted(10))
    assert next(other) == 0
    mine = served(line, "mine", counted(1000))
    assert next(mine) == Waiting(1)
    assert line.stop("mine") and not line.stop("nobody")
    assert [event for event in mine if not isinstance(event, Waiting)] == []  # never begun
    assert list(other) == list(range(1, 10))


def test_a_stop_that_takes_a_while_is_told_once() -> None:
    line = Line()

    def slow(ticket: Ticket, tell: Callable[[Any], None]) -> None:
        tell("begun")
        ticket.stop.wait(10)
        time.sleep(0.6)
        tell("last")

    events = served(line, "mine", slow)
    assert next(events) == "begun"
    line.stop("mine")
    assert list(events) == [Stopping(), "last"]


def test_a_page_that_goes_away_stops_its_order_and_frees_the_line() -> None:
    line = Line()
    gone = served(line, "gone", counted(1000))
    assert next(gone) == 0
    gone.close()
    assert list(served(line, "next", counted(2)))[-2:] == [0, 1]


def test_a_page_that_goes_away_while_it_waits_frees_its_place() -> None:
    line = Line()
    first = served(line, "first", counted(3))
    next(first)
    waiting = served(line, "gone", counted(3))
    assert next(waiting) == Waiting(1)
    waiting.close()
    list(first)
    assert list(served(line, "next", counted(1))) == [0]


def test_a_fault_is_raised_for_its_page_and_the_next_is_served() -> None:
    line = Line()

    def broken(ticket: Ticket, tell: Callable[[Any], None]) -> None:
        tell("begun")
        raise StudioError("The disk is full.")

    events = served(line, "a", broken)
    assert next(events) == "begun"
    with pytest.raises(StudioError, match="disk is full"):
        list(events)
    assert list(served(line, "b", counted(1))) == [0]
