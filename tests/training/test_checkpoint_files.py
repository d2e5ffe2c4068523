"""A checkpoint is complete or not there, whenever the process dies."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from bases import adapt
from mortal import life_of
from torch import nn

from dora_diffusion.config import OptimConfig
from dora_diffusion.errors import FormatError, MachineError, TrainingError
from dora_diffusion.training.checkpoint import Progress, checkpoints, load_checkpoint, save_checkpoint
from dora_diffusion.training.optim import learning_rate_schedule
from dora_diffusion.training.optimizers.adamw import ADAMW


def make_progress() -> Progress:
    """A run at step 0."""
    torch.manual_seed(0)
    adapter = adapt(nn.Sequential(nn.Linear(6, 5)), rank=2)
    config = OptimConfig(lr_scheduler="linear")
    optimizer = ADAMW.make(adapter, config)
    return Progress(adapter, optimizer, learning_rate_schedule(optimizer, config, 10), None, {"photos": "abc"})


@pytest.fixture
def progress() -> Progress:
    return make_progress()


def advance(progress: Progress) -> Progress:
    """One step along a gradient that the step number alone decides."""
    for buffer in progress.adapter.buffers:
        assert buffer.parameter.grad is not None
        buffer.parameter.grad.normal_(generator=torch.Generator().manual_seed(progress.step))
    progress.optimizer.step()
    progress.schedule.step()
    progress.step += 1
    return progress


def assert_is_whole(checkpoint: Path) -> None:
    """It restores what a run of that many steps has, and the next step is the same."""
    restored, walked = make_progress(), make_progress()
    load_checkpoint(checkpoint, restored)
    for _ in range(restored.step):
        advance(walked)
    assert checkpoint.name == f"checkpoint-{restored.step}"
    for _ in range(2):
        for ours, theirs in zip(restored.adapter.buffers, walked.adapter.buffers, strict=True):
            assert torch.equal(ours.parameter, theirs.parameter)
        advance(restored)
        advance(walked)


def test_it_holds_everything_that_the_next_step_needs(progress: Progress, tmp_path: Path) -> None:
    for _ in range(3):
        advance(progress)
    assert_is_whole(save_checkpoint(tmp_path, progress, None))


def test_a_kill_at_any_moment_leaves_whole_checkpoints_alone(tmp_path: Path) -> None:
    """The worst case: only one is kept, and the one to write is there already, from before a resume."""
    moments = 0
    while True:
        folder, progress = tmp_path / str(moments), make_progress()
        save_checkpoint(folder, advance(progress), 1)
        shutil.copytree(folder / "checkpoint-1", tmp_path / "kept", dirs_exist_ok=True)
        save_checkpoint(folder, advance(progress), 1)
        shutil.copytree(tmp_path / "kept", folder / "checkpoint-1")
        with life_of(moments) as life:
            save_checkpoint(folder, progress, 1)
        assert checkpoints(folder)
        for checkpoint in checkpoints(folder):
            assert_is_whole(checkpoint)
        save_checkpoint(folder, progress, 1)
        assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]
        if not life.died:
            break
        moments += 1
    assert moments > 12  # three files, each opened, flushed and renamed, and four folders made, renamed and deleted


@pytest.mark.parametrize(
    "name",
    [
        ".checkpoint-9.writing",
        ".checkpoint-9.deleting",
        "checkpoint-9-copy",
        "checkpoint-9.writing",
        "checkpoint-",
        "x",
    ],
)
def test_what_is_called_otherwise_is_no_checkpoint(progress: Progress, tmp_path: Path, name: str) -> None:
    kept = save_checkpoint(tmp_path, advance(progress), None)
    shutil.copytree(kept, tmp_path / name)
    assert checkpoints(tmp_path) == [kept]


def test_what_lacks_its_last_file_is_no_checkpoint(progress: Progress, tmp_path: Path) -> None:
    kept = save_checkpoint(tmp_path, advance(progress), None)
    half = shutil.copytree(kept, tmp_path / "checkpoint-2")
    (half / "trainer.json").unlink()
    assert checkpoints(tmp_path) == [kept]


def test_the_newest_are_kept_by_number(progress: Progress, tmp_path: Path) -> None:
    for _ in range(11):
        save_checkpoint(tmp_path, advance(progress), 3)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-11"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_costs_no_checkpoint(progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = save_checkpoint(tmp_path, advance(progress), 1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="No space left on device"):
        save_checkpoint(tmp_path, advance(progress), 1)
    assert list(tmp_path.iterdir()) == [kept]
    assert_is_whole(kept)


@pytest.mark.parametrize("file", ["adapter.safetensors", "optimizer.safetensors", "trainer.json"])
def test_a_file_that_was_cut_off_is_named(progress: Progress, tmp_path: Path, file: str) -> None:
    damaged = save_checkpoint(tmp_path, advance(progress), None) / file
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(FormatError, match=f"checkpoint-1/{file}"):
        load_checkpoint(damaged.parent, make_progress())


def test_a_checkpoint_of_other_photos_is_refused(progress: Progress, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path, advance(progress), None)
    progress.guard["photos"] = "xyz"
    with pytest.raises(TrainingError, match="photos was abc and is xyz.*--overwrite"):
        load_checkpoint(checkpoint, progress)
