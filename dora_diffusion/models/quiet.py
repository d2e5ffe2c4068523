"""Loading and writing by libraries: without their progress bars, and whatever they raise in our words."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dora_diffusion.errors import ModelError


def load_quietly(name: str, load: Callable[[], Any]) -> Any:
    """What ``load`` returns.

    Raises:
        ModelError: it failed; ``name`` is the model's.
    """
    try:
        with no_progress_bars(), _no_empty_warnings():
            return load()
    except Exception as error:  # whatever a broken file makes diffusers or safetensors raise, it is the model's fault
        raise ModelError(f"{name} cannot be loaded: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of a message that has any, else the error's kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """No progress bars of the libraries: a base loads and is written in seconds, and ours is the run's."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = [diffusers_logging, transformers_logging]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()


@contextmanager
def _no_empty_warnings() -> Iterator[None]:
    """Casting makes diffusers warn of the modules that should stay float32 even where it lists none."""
    logger = logging.getLogger("diffusers.models.modeling_utils")

    def says_something(record: logging.LogRecord) -> bool:
        return "should be kept in float32: []" not in record.getMessage()

    logger.addFilter(says_something)
    try:
        yield
    finally:
        logger.removeFilter(says_something)
