"""A progress bar for everything that counts up to a total."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


def say_above(text: str) -> None:
    """A line on stderr that leaves a bar whole."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A callable ``(done, total)`` that turns a bar on stderr; rare plain lines where there is no terminal.

    The bar appears with the first turn: what fails before leaves an error message and no empty bar.
    """
    bar: Any = None

    def turn(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(desc=what, total=total, mininterval=0.1 if sys.stderr.isatty() else 10.0, dynamic_ncols=True)
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield turn
    finally:
        if bar is not None:
            bar.close()
