"""What the trainer's tests share."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from training_runs import run_it, small_config


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The runs are too small to gain from a second thread, and lose much where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def freed_memory_goes_back() -> Iterator[None]:
    """The trainer's allocator setting lasts for the process, and a process of tests would only grow by it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dora_diffusion.training.hardware.keep_freed_memory", lambda: None)
        yield


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The command line's answer to Ctrl+C does not outlive a test that calls it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three steps with a checkpoint at each; only to be read."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_it(small_config(folder, 3, run={"checkpointing_steps": 1}))
    return folder


@pytest.fixture
def copy_of_finished(finished_run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of the finished run, to be changed: ``copy_of_finished(name)``."""

    def copy(name: str = "run") -> Path:
        return Path(shutil.copytree(finished_run, tmp_path / name))

    return copy
