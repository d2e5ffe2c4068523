"""What every test may rely on: the small base, a home folder of its own, no network."""

import ctypes
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


@pytest.fixture(scope="module", autouse=True)
def memory_given_back() -> Iterator[None]:
    """What a file's tests freed goes back to the system: kept for reuse, it grows to gigabytes in each worker."""
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


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
