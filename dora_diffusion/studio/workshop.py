"""The workshop: the one process that loads models to draw, export and measure, and how the studio speaks with it."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

OnStep = Callable[[int, int], None]
OnEvent = Callable[[Mapping[str, Any]], None]
COMMAND = (sys.executable, "-m", "dora_diffusion.studio.workshop_process")


class Workshop:
    """Orders to the workshop's process, one at a time; others wait in line.

    The process starts with the first order or ``warm``, is told of everything by a line of JSON, and ends with the
    server, however that ends.

    Args:
        log_file: what it prints besides answers goes there.
        command: starts it.
    """

    def __init__(self, log_file: Path, command: Sequence[str] = COMMAND):
        self.log_file = log_file

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        raise NotImplementedError

    @property
    def is_busy(self) -> bool:
        """Whether it works on an order."""
        raise NotImplementedError

    @property
    def waiting(self) -> int:
        """How many orders wait in line."""
        raise NotImplementedError

    def warm(self, base: str = "toybox") -> None:
        """Start the process and load a base, in the background: the first picture then comes sooner."""
        raise NotImplementedError

    def call(
        self,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """Have ``task`` done, and return its result.

        Args:
            on_event: told what happens on the way.
            stop: set by somebody else, it ends the order, also one that waits in line.

        Raises:
            StudioError: the order was refused, stopped, or the process died.
        """
        raise NotImplementedError

    def release(self, timeout_s: float | None = None) -> bool:
        """End the process, so that a training has the memory; an order that is being worked on is finished first.

        Returns: False when it was still busy after ``timeout_s``, and was left.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the process at once. No order is taken after it."""
        raise NotImplementedError
