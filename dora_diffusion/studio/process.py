"""Whether a trainer lives: it holds a lock that its kernel lets go of when it ends, however it ends.

A pid says little: it is used again, and a dead child keeps its own until somebody reaps it. The server takes the lock,
starts the trainer with the locked file inherited, and closes its own: from then on the lock lives as long as the
trainer, whoever dies first.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dora_diffusion.errors import MachineError

DESCRIPTOR = "DORA_STUDIO_ALIVE"  # environment variable with the number of the inherited descriptor
STAND_BACK = 5  # added to what the server has: a third of its share of a core that both want
PATIENCE_S = 2.0  # a reader looks for microseconds


def take(path: Path) -> int | None:
    """The descriptor of the file, locked for this process alone; None while a trainer holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(descriptor)
                return None
            time.sleep(0.01)


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of ``path``."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def spawn(
    command: Sequence[str], descriptor: int, log_file: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a trainer that holds the lock of ``descriptor``, in a session of its own.

    Raises:
        MachineError: it cannot be started.
    """
    try:
        with log_file.open("ab") as log:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, DESCRIPTOR: str(descriptor)},
                start_new_session=True,
                pass_fds=[descriptor],
            )
    except OSError as error:
        raise MachineError(f"The trainer cannot be started: {error.strerror} ({error.filename}).") from error


def say_alive() -> None:
    """Called by the trainer first of all: write the pid for a server that was not there when it was started.

    The descriptor is not handed on: a program that the trainer starts would keep it alive.
    """
    number = os.environ.pop(DESCRIPTOR, "")
    if number.isdigit():
        os.set_inheritable(int(number), False)
        os.pwrite(int(number), f"{os.getpid()}\n".encode(), 0)


def stand_back() -> None:
    """Let others go first from now on: a process that computes for minutes must not keep pages waiting."""
    os.nice(STAND_BACK)


def pid_in(path: Path) -> int | None:
    """The pid that ``say_alive`` wrote; None before."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None


def send(pid: int, number: signal.Signals, group: bool = False) -> None:
    """Send a signal to a process, or to all of its group; one that has left by itself is fine."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def oom_kills() -> int | None:
    """How many processes this machine's kernel has ended for want of memory since it started; None where it is mute."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else None
