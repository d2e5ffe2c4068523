"""A full disk, a folder that cannot be written to, a stop while saving: a plain message, and nothing lost."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from train_processes import flags
from training_runs import adapter_bytes, checkpoint_bytes, metrics

from dora_diffusion.cli import main
from dora_diffusion.formats.checkpoint_folders import checkpoints, step_of
from dora_diffusion.training import checkpoint as checkpoint_module

STEPS = 4


def train(folder: Path, steps: int, *more: str) -> int:
    return main(["train", *flags(folder, steps, "--checkpointing_steps", "1", *more)])


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The system refuses to make any file longer, as a full disk does; Python ignores the signal that goes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(folder, STEPS) == 0
    return folder


def assert_goes_on_to_the_same_end(folder: Path, undisturbed: Path) -> None:
    assert train(folder, STEPS) == 0
    assert adapter_bytes(folder) == adapter_bytes(undisturbed)
    assert checkpoint_bytes(folder, STEPS) == checkpoint_bytes(undisturbed, STEPS)
    assert [row["loss"] for row in metrics(folder)] == [row["loss"] for row in metrics(undisturbed)]
    assert not list(folder.rglob(".*"))


def assert_plain(told: str, *parts: str) -> None:
    """One line of what and why, no traceback."""
    last = told.strip().splitlines()[-1]
    assert last.startswith("dora-diffusion train: ") and "Traceback" not in told
    for part in parts:
        assert part in last


@pytest.mark.parametrize("size", [0, 1000, 100_000], ids=["nothing fits", "no settings fit", "no checkpoint fits"])
def test_a_disk_that_fills_up(size: int, tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert train(folder, 2) == 0
    before = {step_of(path): checkpoint_bytes(folder, step_of(path)) for path in checkpoints(folder)}
    capsys.readouterr()
    with files_no_larger_than(size):
        assert train(folder, STEPS) == 2
    assert_plain(capsys.readouterr().err, os.strerror(errno.EFBIG))
    assert {step_of(path): checkpoint_bytes(folder, step_of(path)) for path in checkpoints(folder)} == before
    assert_goes_on_to_the_same_end(folder, undisturbed)


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_folder_that_may_not_be_written_to(
    moment: str,
    tmp_path: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Mounted read-only before the run, or as its second checkpoint is written. Tests may run as root: no chmod."""
    folder = tmp_path / "run"
    assert train(folder, 2) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        mount_read_only(patch, folder, lambda: moment == "before" or (folder / "checkpoint-3").exists())
        assert train(folder, STEPS) == 2
    assert_plain(capsys.readouterr().err, str(folder), os.strerror(errno.EROFS).lower()[5:])
    assert [step_of(path) for path in checkpoints(folder)] == ([1, 2] if moment == "before" else [1, 2, 3])
    assert_goes_on_to_the_same_end(folder, undisturbed)


def mount_read_only(patch: pytest.MonkeyPatch, folder: Path, is_mounted: Any) -> None:
    """Whatever would change ``folder`` fails once ``is_mounted()``."""

    def refusing(real: Any) -> Any:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            inside = str(path).startswith(str(folder))
            how = arguments[0] if arguments else options.get("mode", "r")
            reading = (real is REAL_OPEN and how in ("r", "rb")) or (real is REAL_OS_OPEN and how & WRITING == 0)
            if inside and not reading and is_mounted():
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *arguments, **options)

        return call

    for name in ("open", "mkdir", "replace", "unlink", "rename"):
        patch.setattr(Path, name, refusing(getattr(Path, name)))
    patch.setattr(os, "open", refusing(os.open))  # what tempfile tries a folder with


REAL_OPEN, REAL_OS_OPEN = Path.open, os.open
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@pytest.mark.parametrize(("asked", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_that_comes_while_a_checkpoint_is_written(
    asked: signal.Signals,
    status: int,
    tmp_path: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is written to its end; the run stops one step later and goes on as if nothing had happened. What a shell runs
    after ``train &&`` does not begin."""
    folder, real = tmp_path / "run", checkpoint_module.write_bytes

    def interrupted(path: Path, content: bytes) -> None:
        if path.parent.name == ".checkpoint-2.writing" and path.name == checkpoint_module.OPTIMIZER:
            os.kill(os.getpid(), asked)
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_bytes", interrupted)
        assert train(folder, STEPS) == status
    said = capsys.readouterr().err
    assert "Stopping: the run is saved first." in said and "Stopped after 3 steps" in said
    assert [step_of(path) for path in checkpoints(folder)] == [1, 2, 3]
    assert_goes_on_to_the_same_end(folder, undisturbed)
