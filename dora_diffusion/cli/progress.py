"""A progress bar for everything that counts up to a total."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A callable ``(done, total)`` that turns a bar on stderr; rare plain lines where there is no terminal."""
    bar = tqdm(desc=what, mininterval=0.1 if sys.stderr.isatty() else 10.0, dynamic_ncols=True)

    def turn(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield turn
    finally:
        bar.close()
