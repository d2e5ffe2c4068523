"""Waiting for what another process will make true."""

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return as soon as ``is_so``; fail when it never is."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
