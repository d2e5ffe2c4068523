"""What tasks share: the order in hand, and the pipeline that is kept from picture to picture."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dora_diffusion.inference import MergedPipeline


class StopOrderError(Exception):
    """Raised in a task whose order was stopped."""


class Tell(Protocol):
    """Tells the server what happens."""

    def __call__(self, event: str, **facts: Any) -> None: ...


class Desk:
    """One order at a time. Of pipelines, the one used last is kept.

    Attributes:
        base_digest: of the kept pipeline's base, before anything was merged in.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._tell: Tell | None = None
        self._kept: tuple[str, MergedPipeline] | None = None
        self.base_digest = ""

    @contextmanager
    def order(self, stop: threading.Event, tell: Tell) -> Iterator[None]:
        """Within the block this order is in hand; warnings of the package are told too."""
        self._stop, self._tell = stop, tell
        notes = _Notes(tell)
        logger = logging.getLogger("dora_diffusion")
        logger.addHandler(notes)
        try:
            yield
        finally:
            logger.removeHandler(notes)
            self._tell = None

    def tell(self, event: str, **facts: Any) -> None:
        """Tell the server something."""
        if self._tell is not None:
            self._tell(event, **facts)

    def check_stop(self) -> None:
        """Raises: StopOrderError: somebody wants this order to end."""
        if self._stop.is_set():
            raise StopOrderError

    def is_stopped(self) -> bool:
        """Whether somebody does."""
        return self._stop.is_set()

    def pipeline(self, base: str) -> "MergedPipeline":
        """The pipeline of a base; another's memory is let go first, as two may not fit.

        Raises:
            ModelError, MachineError: it cannot be loaded.
        """
        if self._kept is None or self._kept[0] != base:
            self.let_go()
            self.check_stop()
            self.tell("note", text=f"Loading {base.rpartition('/')[2]}.")
            from dora_diffusion.inference import MergedPipeline
            from dora_diffusion.inference.out_of_memory import memory_told
            from dora_diffusion.models import base_digest

            with memory_told("loading the base", ["waiting until a training is done"]):
                self._kept = (base, MergedPipeline(base))
            self.base_digest = base_digest(self._kept[1].base)
        return self._kept[1]

    def let_go(self) -> None:
        """Give the kept pipeline's memory back."""
        if self._kept is not None:
            self._kept = None
            import gc

            import torch

            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


class _Notes(logging.Handler):
    """Warnings of the package, which on a command line are printed."""

    def __init__(self, tell: Tell):
        super().__init__(logging.WARNING)
        self._say = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._say("warning", text=record.getMessage())
