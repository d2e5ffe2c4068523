"""What every test may rely on: the small base, a home folder of its own, no network."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of a test never meet those of the machine, or of another test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DORA_HOME", str(home))
    return home


class Heap:
    """What this process holds. Freed memory that is kept for reuse grows to gigabytes over thousands of tests."""

    def __init__(self) -> None:
        self._least = self._held()

    def give_back(self) -> None:
        """Let the system have what is free, once much has come together."""
        if self._held() > self._least + 2**28:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            self._least = self._held()

    def _held(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session")
def heap() -> Heap | None:
    return Heap() if sys.platform == "linux" else None


@pytest.fixture(autouse=True)
def memory_given_back(heap: Heap | None) -> Iterator[None]:
    yield
    if heap is not None:
        heap.give_back()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def subject_photos() -> Path:
    """Five rendered photos of one toy."""
    return ROOT / "samples" / "subjects" / "teapot"


@pytest.fixture
def toybox():
    """A fresh float32 copy of the embedded base, on the CPU; loading takes about half a second."""
    from dora_diffusion.models import load_base

    return load_base("toybox")
