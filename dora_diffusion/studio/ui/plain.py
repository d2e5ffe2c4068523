"""Errors on the page: a user's mistake in its own plain words, anything else as a reference into the log."""

import inspect
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from dora_diffusion.errors import DoraError

LOG = logging.getLogger("dora_diffusion.studio")


def plainly(log_file: Path, say: Callable[[str], str] = escape) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for handlers, generators too: no traceback reaches the page, and none is lost.

    Args:
        log_file: where the studio's log goes, for the words on the page.
        say: makes a message fit for where it is read; a page reads HTML.
    """

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handler)
        def handled(*values: Any, **named: Any) -> Any:
            with _told(log_file, say):
                return handler(*values, **named)

        @wraps(handler)
        def handled_on_and_on(*values: Any, **named: Any) -> Iterator[Any]:
            with _told(log_file, say):
                yield from handler(*values, **named)

        return handled_on_and_on if inspect.isgeneratorfunction(handler) else handled

    return decorate


@contextmanager
def _told(log_file: Path, say: Callable[[str], str]) -> Iterator[None]:
    try:
        yield
    except DoraError as error:
        raise gr.Error(say(str(error)), print_exception=False) from error
    except Exception as error:
        reference = secrets.token_hex(2)
        LOG.exception("reference %s", reference)
        words = f"Something went wrong that should not (reference {reference}). The details are in {log_file}."
        raise gr.Error(say(words), print_exception=False) from error
