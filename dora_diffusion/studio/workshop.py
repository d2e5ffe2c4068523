"""The workshop: the one process that loads models to draw, export and measure, and how the studio speaks with it.

The server never computes. Its orders go to the process as lines of JSON, ``{"order": n, "task": ..., "arguments": {}}``
or ``{"stop": n}``; answers come as ``{"order": n, "event": kind, ...}``, of which the last is "done" with a result,
"refused" with words for the user, "stopped", or "broken".
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from dora_diffusion.errors import StudioError

OnStep = Callable[[int, int], None]
OnEvent = Callable[[Mapping[str, Any]], None]
COMMAND = (sys.executable, "-m", "dora_diffusion.studio.workshop_process")
# No request leaves the machine, and libraries print nothing that is not asked for.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "KMP_BLOCKTIME": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}
_LAST = ("done", "stopped", "refused", "broken")
_CLOSING_S = 5.0  # how long an order may take to notice that its process is gone
_LOOK_S = 0.1  # how often it is asked whether somebody wants to stop


class StoppedError(StudioError):
    """An order was stopped by whoever gave it."""


class Workshop:
    """Orders to the workshop's process, one at a time; others wait in line.

    The process starts with the first order, and ends with the server, however that ends: its input closes.

    Args:
        log_file: what it prints besides answers goes there.
        command: starts it.
        environment: laid over the server's own.
        patience_s: how long an order that is stopped may take to end; then the process is ended.
    """

    def __init__(
        self,
        log_file: Path,
        command: Sequence[str] = COMMAND,
        environment: Mapping[str, str] | None = None,
        patience_s: float = 20.0,
    ):
        self.log_file = log_file
        self._command = list(command)
        self._environment = {**QUIET, **(environment or {})}
        self._patience_s = patience_s
        self._turns = _Turns()
        self._process: _Process | None = None
        self._orders = 0
        self._closed = False
        self._siblings: WeakSet[Workshop] = WeakSet()

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        process = self._process
        return process is not None and process.is_alive

    @property
    def is_busy(self) -> bool:
        """Whether it works on an order."""
        return self._turns.length > 0

    @property
    def waiting(self) -> int:
        """How many orders wait in line."""
        return max(0, self._turns.length - 1)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.is_alive else None

    def call(
        self,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """Have ``task`` done, and return its result.

        Args:
            on_event: told what happens on the way, in this thread.
            stop: set by somebody else, it ends the order, also one that waits in line.

        Raises:
            StoppedError: ``stop`` was set.
            StudioError: the order was refused, or the process died.
        """
        with self._turns.turn(stop):
            process, number = self._send(task, arguments or {})
            try:
                return self._answer(process, number, on_event, stop)
            except BaseException:
                # A listener that raised leaves an order behind that nobody wants.
                if process.is_alive and not process.idle:
                    self._wind_up(process, number)
                raise

    def sibling(self, environment: Mapping[str, str], patience_s: float | None = None) -> "Workshop":
        """Another workshop like this one, with its own process and line; closed with this one at the latest."""
        patience_s = self._patience_s if patience_s is None else patience_s
        other = Workshop(self.log_file, self._command, {**self._environment, **environment}, patience_s)
        self._siblings.add(other)
        if self._closed:
            other.close()
        return other

    def release(self, timeout_s: float | None = None) -> bool:
        """End the process, so that a training has the memory; an order that is being worked on is finished first.

        Orders that wait come after it, in a new process.

        Returns: False when it was still busy after ``timeout_s``, and was left.
        """
        try:
            with self._turns.turn(timeout_s=timeout_s, first=True):
                self._end()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End the process at once. No order is taken after it."""
        self._closed = True
        for sibling in list(self._siblings):
            sibling.close()
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for its answer finds it gone, and its pipes are that thread's to close
        with suppress(TimeoutError), self._turns.turn(timeout_s=_CLOSING_S, first=True):
            self._end()

    def _send(self, task: str, arguments: Mapping[str, Any]) -> tuple["_Process", int]:
        """Give an order to the process, a new one where there is none."""
        for _ in range(2):  # one that died while it had nothing to do is found out by the first order
            if self._closed:
                raise StudioError("The studio is closing; no more orders are taken.")
            process = self._process
            if process is None or not process.is_alive:
                self._end()
                process = self._process = _Process(self._command, self._environment, self.log_file)
            self._orders += 1
            try:
                process.send({"order": self._orders, "task": task, "arguments": dict(arguments)})
                return process, self._orders
            except OSError:
                self._end()
        raise StudioError(f"The drawing process ends as soon as it starts. {self._details()}")

    def _answer(
        self, process: "_Process", number: int, on_event: OnEvent | None, stop: threading.Event | None
    ) -> dict[str, Any]:
        asked_at: float | None = None
        while True:
            if stop is not None and stop.is_set():
                asked_at = self._ask_to_stop(process, number, asked_at)
            try:
                event = process.next_event(_LOOK_S)
            except EOFError:
                raise self._died(process) from None
            if event is None or event.get("order") != number:
                continue
            if event["event"] in _LAST:
                process.idle = True
                return self._result(event)
            if on_event is not None and asked_at is None:
                on_event(event)

    def _ask_to_stop(self, process: "_Process", number: int, asked_at: float | None) -> float:
        """When it was asked; once, and if it does not listen it is ended."""
        if asked_at is None:
            process.try_send({"stop": number})
            return time.monotonic()
        if time.monotonic() - asked_at > self._patience_s:
            self._end()
            raise StoppedError("Stopped. What it was doing could not be left halfway, so its process was ended.")
        return asked_at

    def _result(self, event: Mapping[str, Any]) -> dict[str, Any]:
        match event["event"]:
            case "done":
                return dict(event.get("result") or {})
            case "stopped":
                raise StoppedError("Stopped.")
            case "refused":
                raise StudioError(str(event.get("message")))
            case _:
                raise StudioError(f"Something went wrong: {event.get('message')}. {self._details()}")

    def _wind_up(self, process: "_Process", number: int) -> None:
        """Have an order ended that nobody waits for any more."""
        stop = threading.Event()
        stop.set()
        with suppress(StudioError):
            self._answer(process, number, None, stop)

    def _died(self, process: "_Process") -> StudioError:
        status = process.end()
        self._process = None
        if self._closed:
            return StudioError("The studio is closing; the order was not finished.")
        if status < 0:
            by = "the system, mostly because memory ran out" if -status == signal.SIGKILL else "a fault in a library"
            why = f"ended by signal {-status}, {by}"
        else:
            why = f"with status {status}"
        return StudioError(
            f"The drawing process ended unexpectedly ({why}). Try again: a new one starts with the next order. "
            f"{self._details()}"
        )

    def _details(self) -> str:
        return f"Details are in {self.log_file.name}."

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    """One process of the workshop: lines out, lines in."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log_file: Path):
        log_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log_file.open("ab") as log:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **environment},
                    start_new_session=True,  # Ctrl-C in the server's terminal is the server's
                )
        except OSError as error:
            raise StudioError(f"The drawing process cannot be started: {error.strerror or error}.") from None
        self._rest = b""
        self._ready: deque[dict[str, Any]] = deque()
        self._sending = threading.Lock()
        self.idle = True

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises: OSError: the process is gone."""
        assert self._child.stdin is not None
        with self._sending:
            self._child.stdin.write(json.dumps(message).encode() + b"\n")
            self._child.stdin.flush()
        self.idle = False

    def try_send(self, message: Mapping[str, Any]) -> None:
        with suppress(OSError):  # it died, which the next answer tells
            self.send(message)

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next line it wrote; None when there was none in time.

        Raises:
            EOFError: it ended.
        """
        if not self._ready:
            self._read(timeout_s)
        return self._ready.popleft() if self._ready else None

    def _read(self, timeout_s: float) -> None:
        assert self._child.stdout is not None
        handle = self._child.stdout.fileno()
        poll = select.poll()  # not select.select, which cannot take numbers past 1023
        poll.register(handle, select.POLLIN)
        if not poll.poll(1000 * timeout_s):
            return
        chunk = os.read(handle, 65536)
        if not chunk:
            raise EOFError
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._ready.append(event)

    def kill(self) -> None:
        """End it; what reads its answers is told by their end."""
        if self._child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def end(self) -> int:
        """End it, and return its exit status."""
        self.kill()
        status = self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was still to be sent has no reader any more
                pass
        return status


class _Turns:
    """Whose turn it is at the process: who comes first is served first, but for who ends it.

    A thread that waits here blocks. The line in which pages wait is ``ui.line.Line``: there an order belongs to a page,
    is told how many are before it, and is stopped with all others of its page; when its turn has come there, it waits
    here among exports, checks and the ends of the process, which belong to no page.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @property
    def length(self) -> int:
        """How many wait, the one that is being served included."""
        return len(self._waiting)

    @contextmanager
    def turn(
        self, stop: threading.Event | None = None, timeout_s: float | None = None, *, first: bool = False
    ) -> Iterator[None]:
        """Wait for one's turn, and have it within the block.

        Args:
            first: come before all who wait, but for whom is being served.

        Raises:
            StoppedError: ``stop`` was set before it came.
            TimeoutError: it took longer than ``timeout_s``.
        """
        ticket = object()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            with self._changed:
                self._waiting.insert(1 if first else len(self._waiting), ticket)
                while self._waiting[0] is not ticket:
                    self._changed.wait(_LOOK_S)
                    if stop is not None and stop.is_set():
                        raise StoppedError("Stopped.")
                    if until is not None and time.monotonic() > until:
                        raise TimeoutError
            if stop is not None and stop.is_set():
                raise StoppedError("Stopped.")
            yield
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()
