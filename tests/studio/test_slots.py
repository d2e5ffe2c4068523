"""One training a GPU, of those that may be used; the driver's tool is asked, never torch."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dora_diffusion.studio import slots

TWO = "0, NVIDIA H200, 143771\n1, Some GPU, 24564\n"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    slots.gpus.cache_clear()
    yield
    slots.gpus.cache_clear()


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a tool in the path that answers as the driver's does."""

    def install(answer: str, status: int = 0) -> None:
        (tmp_path / "answer").write_text(answer)
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n/bin/cat {tmp_path / 'answer'}\nexit {status}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def test_without_a_driver_there_is_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slots.gpus() == () and slots.slots() == ("cpu",)
    assert slots.environment("cpu") == {}


def test_one_slot_a_gpu(driver: Callable[..., None]) -> None:
    driver(TWO)
    assert [(gpu.index, gpu.name, round(gpu.gib)) for gpu in slots.gpus()] == [
        ("0", "NVIDIA H200", 140),
        ("1", "Some GPU", 24),
    ]
    assert slots.slots() == ("0", "1") and slots.environment("1") == {"CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", ("1",)), ("1,0", ("1", "0")), ("", ("cpu",)), ("-1", ("cpu",)), ("GPU-8932f937", ("GPU-8932f937",))],
)
def test_what_is_hidden_is_no_slot(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str, expected: tuple[str, ...]
) -> None:
    driver(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots.slots() == expected


@pytest.mark.parametrize(
    ("answer", "status"), [("No devices were found\n", 6), ("No devices were found\n", 0), ("", 0)]
)
def test_a_driver_without_gpus(driver: Callable[..., None], answer: str, status: int) -> None:
    driver(answer, status)
    assert slots.slots() == ("cpu",)
