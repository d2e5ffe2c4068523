"""The trainers of this machine: started, looked at, asked to leave."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dora_diffusion.studio import process
from dora_diffusion.studio.disk import last_line, read_json, shorten_log
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.job_files import adapter_file, run_folder
from dora_diffusion.studio.observe import ACTIVE, Death, Noted, Observed, observe
from dora_diffusion.studio.slots import environment


class Trainers:
    """What is known of the trainers of one home; any thread may ask.

    Args:
        command: what trains; the path of a config.yaml is appended.
        oom_kills: the kernel's count of processes that it ended for want of memory.
    """

    def __init__(self, home: Home, command: Sequence[str], oom_kills: Callable[[], int | None] = process.oom_kills):
        self._home, self._command, self.oom_kills = home, list(command), oom_kills
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def reserve(self, id: str) -> int | None:
        """Take a job's lock, as its trainer will hold it; None while one lives. Forgets the last one's words."""
        descriptor = process.take(self._alive_file(id))
        if descriptor is not None:
            (run_folder(self._home.path_of("job", id)) / "status.json").unlink(missing_ok=True)
        return descriptor

    def launch(self, id: str, descriptor: int, slot: str) -> int:
        """Start a job's trainer, to which the reserved lock goes. Returns: its pid.

        Raises:
            MachineError: it cannot be started.
        """
        folder = self._home.path_of("job", id)
        run_folder(folder).mkdir(exist_ok=True, mode=0o700)  # so that it can say what it does before its first file
        log = folder / "trainer.log"
        shorten_log(log)
        variables = {"DORA_HOME": str(self._home.path), "PYTHONUNBUFFERED": "1", **environment(slot)}
        child = process.spawn([*self._command, str(folder / "config.yaml")], descriptor, log, variables)
        self._children[id] = child
        return child.pid

    @staticmethod
    def release(descriptor: int) -> None:
        """Close this process's own end of a reserved lock."""
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def is_alive(self, id: str) -> bool:
        """Whether the job's trainer lives. One of our children does until it was reaped: its exit status says more."""
        child = self._children.get(id)
        if child is not None and child.poll() is None:
            return True
        return process.is_held(self._alive_file(id))

    def look(self, id: str, noted: Noted, oom_kills_before: int | None = None) -> tuple[Observed, Mapping[str, Any]]:
        """What a job's state is, and what its trainer said last."""
        if noted.state not in ACTIVE:
            return observe(noted, False, {}, False), {}
        folder = self._home.path_of("job", id)
        alive = self.is_alive(id)  # before the report, see ``observe``
        report = read_json(run_folder(folder) / "status.json")
        death = None if alive else self._death(id, folder, oom_kills_before)
        return observe(noted, alive, report, adapter_file(folder, None) is not None, death), report

    def can_be_asked(self, id: str, pid: int | None) -> bool:
        """Whether it is known whom to send a signal: a trainer that was just adopted may not have said its pid yet."""
        return self._pid(id, pid) is not None

    def ask_to_leave(self, id: str, pid: int | None) -> None:
        """Send SIGTERM to a job's living trainer."""
        child, found = self._children.get(id), self._pid(id, pid)
        if child is not None:
            child.send_signal(signal.SIGTERM)  # which looks first whether it was reaped
        elif found is not None:
            process.send(found, signal.SIGTERM)

    def end(self, id: str, pid: int | None) -> None:
        """End a job's trainer and all that it started, at once."""
        found = self._pid(id, pid)
        if found is not None:
            process.send(found, signal.SIGKILL, group=True)  # start_new_session made its pid the group's

    def forget(self, id: str) -> None:
        """A job's trainer has ended and that was noted."""
        self._children.pop(id, None)

    def _pid(self, id: str, noted: int | None) -> int | None:
        """The pid to signal, while the trainer lives: what it wrote itself, or what was noted at the start."""
        if not self.is_alive(id):
            return None
        child = self._children.get(id)
        return child.pid if child is not None else process.pid_in(self._alive_file(id)) or noted

    def _death(self, id: str, folder: Path, oom_kills_before: int | None) -> Death:
        child, now = self._children.get(id), self.oom_kills()
        starved = oom_kills_before is not None and now is not None and now > oom_kills_before
        return Death(None if child is None else child.poll(), starved, last_line(folder / "trainer.log"))

    def _alive_file(self, id: str) -> Path:
        return self._home.path_of("job", id) / "alive"
