"""The queue: who is next, and when that will be."""

import heapq
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dora_diffusion.studio.database import Database

_RECENT = 10  # finished trainings that a pace is taken from


@dataclass(frozen=True)
class Place:
    """0 is next in line; ``starts_in`` seconds, None where that cannot be said."""

    position: int
    starts_in: float | None


def append(connection: sqlite3.Connection, number: int) -> None:
    """Put a job at the end of the queue, with what was said of an earlier attempt forgotten.

    Raises:
        sqlite3.IntegrityError: another job of its subject waits or runs.
    """
    connection.execute(
        "update jobs set state = 'queued', ended = null, message = '', code = null, stop_asked = null, "
        "stop_sent = null, pid = null, slot = null, "
        "place = (select coalesce(max(place), 0) + 1 from jobs) where number = ?",
        (number,),
    )


def claim(connection: sqlite3.Connection, number: int, slot: str, oom_kills: int | None) -> bool:
    """Take a waiting job out of the queue, to start it. Returns: False when somebody else did, or cancelled it."""
    claimed = connection.execute(
        "update jobs set state = 'starting', attempt = attempt + 1, started = ?, place = null, slot = ?, "
        "oom_kills = ?, pid = null, stop_asked = null, stop_sent = null where number = ? and state = 'queued'",
        (time.time(), slot, oom_kills, number),
    )
    return claimed.rowcount == 1


def move_up(connection: sqlite3.Connection, number: int) -> bool:
    """Swap a waiting job with the one before it. Returns: False when it does not wait."""
    own = connection.execute("select place from jobs where number = ? and state = 'queued'", (number,)).fetchone()
    if own is None:
        return False
    before = connection.execute(
        "select number, place from jobs where state = 'queued' and place < ? order by place desc limit 1", (own[0],)
    ).fetchone()
    if before is not None:
        connection.execute("update jobs set place = ? where number = ?", (before["place"], number))
        connection.execute("update jobs set place = ? where number = ?", (own["place"], before["number"]))
    return True


def waiting(database: Database) -> list[sqlite3.Row]:
    """The rows that wait, in order."""
    return database.rows("select * from jobs where state = 'queued' order by place")


def paces(database: Database) -> dict[str, float]:
    """Seconds a step, all in, of the last finished trainings of each base."""
    rows = database.rows(
        "select base, seconds, total from jobs where state = 'done' and seconds > 0 order by number desc limit ?",
        (20 * _RECENT,),
    )
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["base"], []).append(row["seconds"] / row["total"])
    return {base: sum(paces[:_RECENT]) / len(paces[:_RECENT]) for base, paces in found.items()}


def takes(row: sqlite3.Row, paces: Mapping[str, float]) -> float | None:
    """Seconds that a job has to go, counted from where its next (or present) attempt begins; None if nobody knows.

    Args:
        row: an unfinished job; what it should take was told when it was put in line, and is taken if it was known.
        paces: of the bases, as ``paces`` says.
    """
    total = max(1, row["total"])
    if row["expected_s"] is not None:
        step_s = row["expected_s"] / total
    elif row["base"] in paces:
        step_s = paces[row["base"]]
    else:
        return None
    return float(step_s * max(0, total - row["step"]))


def line(database: Database, busy_for: Sequence[float | None], slots: int) -> dict[str, Place]:
    """Each waiting job's place, by id.

    Args:
        busy_for: seconds that each running one will go on.
        slots: how many run at the same time.
    """
    columns = "number, base, total, step, expected_s"
    rows = database.rows(f"select {columns} from jobs where state = 'queued' order by place")
    pace = paces(database)
    free: list[float] | None = None
    if None not in busy_for:
        free = [seconds for seconds in busy_for if seconds is not None][:slots]
        free += [0.0] * (slots - len(free))
        heapq.heapify(free)
    places = {}
    for position, row in enumerate(rows):
        starts_in = heapq.heappop(free) if free else None
        places[f"job-{row['number']}"] = Place(position, starts_in)
        takes_s = takes(row, pace)
        if free is not None and starts_in is not None and takes_s is not None:
            heapq.heappush(free, starts_in + takes_s)
        else:
            free = None  # how long this one takes is not known, nor what comes after
    return places
