"""Who a process is: a pid alone does not say, as pids are used again and a dead child keeps its own until reaped."""

from pathlib import Path

import psutil


def birth(pid: int) -> str | None:
    """When the process ``pid`` began, in a form that only equality makes sense of; None when there is no such process.

    Linux counts clock ticks since boot (field 22 of ``/proc/<pid>/stat``), which no change of the wall clock moves;
    elsewhere psutil's creation time is taken.
    """
    fields = _proc_stat(pid)
    if fields is not None:
        return fields[19]
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


def is_alive(pid: int, born: str) -> bool:
    """Whether the very process that began at ``born`` still runs; a zombie does not."""
    if birth(pid) != born:
        return False
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _proc_stat(pid: int) -> list[str] | None:
    """Fields 3 and up of the process's line; field 2, its name in brackets, may hold blanks and brackets itself."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return line.rpartition(")")[2].split()
