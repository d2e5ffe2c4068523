"""A checkpoint is complete or not there, whenever the process dies."""

import errno
import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import adapt
from mortal import life_of
from torch import nn

from dora_diffusion.config import OptimConfig
from dora_diffusion.errors import FormatError, MachineError, TrainingError
from dora_diffusion.formats.checkpoint_folders import checkpoints
from dora_diffusion.registry import OPTIMIZERS
from dora_diffusion.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from dora_diffusion.training.ema import Ema
from dora_diffusion.training.optim import learning_rate_schedule

FILES = ["adapter.safetensors", "optimizer.safetensors", "ema.safetensors", "trainer.json", "manifest.json"]


def make_progress(**settings: Any) -> Progress:
    """A run at step 0."""
    torch.manual_seed(0)
    adapter = adapt(nn.Sequential(nn.Linear(6, 5)), rank=2)
    config = OptimConfig(**{"lr_scheduler": "linear", **settings})
    optimizer = OPTIMIZERS.load(config.optimizer).make(adapter, config)
    schedule = learning_rate_schedule(optimizer, config, 30)
    ema = Ema(adapter, config.ema_decay) if config.ema_decay else None
    return Progress(adapter, optimizer, schedule, None, {"photos": "abc"}, ema=ema)


@pytest.fixture
def progress() -> Progress:
    return make_progress()


def advance(progress: Progress) -> Progress:
    """One step along a gradient that the step number alone decides, and that mostly goes one way."""
    for buffer in progress.adapter.buffers:
        assert buffer.parameter.grad is not None
        buffer.parameter.grad.normal_(generator=torch.Generator().manual_seed(progress.step)).add_(2)
    progress.optimizer.step()
    progress.schedule.step()
    progress.step += 1
    if progress.ema is not None:
        progress.ema.update(progress.step)
    return progress


def assert_is_whole(checkpoint: Path, **settings: Any) -> None:
    """It restores what a run of that many steps has, and the next steps are the same."""
    restored, walked = make_progress(**settings), make_progress(**settings)
    load_checkpoint(checkpoint, restored)
    for _ in range(restored.step):
        advance(walked)
    assert checkpoint.name == f"checkpoint-{restored.step}"
    for _ in range(2):
        for ours, theirs in zip(restored.adapter.buffers, walked.adapter.buffers, strict=True):
            assert torch.equal(ours.parameter, theirs.parameter)
        if restored.ema is not None and walked.ema is not None:
            for mean, other in zip(restored.ema.averages, walked.ema.averages, strict=True):
                assert torch.equal(mean, other)
        assert optimizer_numbers(restored) == optimizer_numbers(walked)
        advance(restored)
        advance(walked)


def optimizer_numbers(progress: Progress) -> list[dict[str, Any]]:
    """Everything in the optimizer's groups that is no parameter."""
    groups = progress.optimizer.param_groups
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def test_it_holds_everything_that_the_next_step_needs(progress: Progress, tmp_path: Path) -> None:
    for _ in range(3):
        advance(progress)
    assert_is_whole(save_checkpoint(tmp_path, progress, None))


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_it_holds_the_whole_state_of_every_optimizer(optimizer: str, tmp_path: Path) -> None:
    """Prodigy's step size and schedule-free's sums are numbers of the groups, not tensors of the parameters."""
    rate = 1.0 if optimizer == "prodigy" else 1e-2
    shape = "constant_with_warmup" if optimizer == "adamw_schedule_free" else "linear"
    settings: dict[str, Any] = {
        "optimizer": optimizer,
        "learning_rate": rate,
        "lr_scheduler": shape,
        "lr_warmup_steps": 3,
    }
    if optimizer == "prodigy":
        settings["prodigy_use_bias_correction"] = False  # with it, its step size grows from step 70 or so
    progress, fresh = make_progress(**settings), make_progress(**settings)
    for _ in range(12):
        advance(progress)
    assert_is_whole(save_checkpoint(tmp_path, progress, None), **settings)
    moved = {"prodigy": "d", "adamw_schedule_free": "lr_max"}.get(optimizer, "lr")
    assert optimizer_numbers(progress)[0][moved] > optimizer_numbers(fresh)[0][moved]


def test_it_holds_the_moving_average(tmp_path: Path) -> None:
    progress = make_progress(ema_decay=0.9)
    for _ in range(3):
        advance(progress)
    assert_is_whole(save_checkpoint(tmp_path, progress, None), ema_decay=0.9)


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
    assert moments > 15  # four files, each opened, flushed and renamed, and four folders made, renamed and deleted


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


@pytest.mark.parametrize("file", FILES)
def test_what_lost_a_file_is_a_damaged_checkpoint(tmp_path: Path, file: str) -> None:
    """It counts as one: to pass over it without a word would lose steps without a word."""
    progress = make_progress(ema_decay=0.9)
    damaged = save_checkpoint(tmp_path, advance(progress), None)
    (damaged / file).unlink()
    assert checkpoints(tmp_path) == [damaged]
    with pytest.raises(FormatError, match=f"checkpoint-1/{file} cannot be read"):
        load_checkpoint(damaged, make_progress(ema_decay=0.9))


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path, file: str) -> None:
    """And nothing of the run is changed by the try."""
    path = save_checkpoint(tmp_path, advance(make_progress(ema_decay=0.9)), None) / file
    content = path.read_bytes()
    for place in [0, len(content) // 3, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        restored, untouched = make_progress(ema_decay=0.9), make_progress(ema_decay=0.9)
        with pytest.raises(FormatError, match="is not w"):
            load_checkpoint(path.parent, restored)
        assert restored.step == 0
        for ours, theirs in zip(restored.adapter.buffers, untouched.adapter.buffers, strict=True):
            assert torch.equal(ours.parameter, theirs.parameter)
    path.write_bytes(content)
    assert_is_whole(path.parent, ema_decay=0.9)


@pytest.mark.parametrize("manifest", ["{}", "[]", "3", '{"adapter.safetensors": 3}', '{"trainer.json": {"size": 1}}'])
def test_a_manifest_of_something_else_is_damage(progress: Progress, tmp_path: Path, manifest: str) -> None:
    checkpoint = save_checkpoint(tmp_path, advance(progress), None)
    (checkpoint / "manifest.json").write_text(manifest)
    with pytest.raises(FormatError, match="checkpoint-1/"):
        load_checkpoint(checkpoint, make_progress())


def test_the_manifest_says_what_b2sum_says(progress: Progress, tmp_path: Path) -> None:
    """``b2sum -l 256`` of every file, and its size."""
    checkpoint = save_checkpoint(tmp_path, advance(progress), None)
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.name != "manifest.json"}
    expected = {
        name: {"size": len(content), "blake2b": hashlib.blake2b(content, digest_size=32).hexdigest()}
        for name, content in files.items()
    }
    assert json.loads((checkpoint / "manifest.json").read_bytes()) == expected


def test_the_newest_are_kept_by_number(progress: Progress, tmp_path: Path) -> None:
    for _ in range(11):
        save_checkpoint(tmp_path, advance(progress), 3)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-11"]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_one_just_written_is_kept_whatever_its_number(progress: Progress, tmp_path: Path) -> None:
    """After going back to an earlier step, those of later steps are still there, perhaps damaged."""
    later = save_checkpoint(tmp_path / "other", advance(make_progress()), None)
    shutil.copytree(later, tmp_path / "checkpoint-7")
    kept = save_checkpoint(tmp_path, advance(progress), 1)
    assert checkpoints(tmp_path) == [kept]


@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (Path, "open"), (Path, "replace"), (Path, "mkdir")], ids=lambda part: str(part)
)
@pytest.mark.parametrize("fails", range(6))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_save_that_fails_costs_no_checkpoint(
    owner: Any, name: str, fails: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full disk or read-only folder, from the n-th thing done to it on: the oldest goes after the newest is safe."""
    progress = make_progress()
    kept = [save_checkpoint(tmp_path, advance(progress), 2) for _ in range(2)]
    calls, real = itertools.count(), getattr(owner, name)

    def refuse(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= fails:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, refuse)
    try:
        save_checkpoint(tmp_path, advance(progress), 2)
    except MachineError as error:
        assert os.strerror(code) in str(error) and "checkpoint-3" in str(error)
    else:
        assert next(calls) <= fails  # it never came to it
    monkeypatch.undo()
    saved = checkpoints(tmp_path)
    assert saved[-1].name == "checkpoint-3" or saved == kept
    assert len(saved) >= 2
    for checkpoint in saved:
        assert_is_whole(checkpoint)


@pytest.mark.parametrize("file", [name for name in FILES if name != "ema.safetensors"])
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


def test_long_changes_are_cut_short_and_an_earlier_versions_checkpoint_is_told_by_its_digest(
    progress: Progress, tmp_path: Path
) -> None:
    progress.learnt_from = {"photos": {f"{number}.jpg": "a" for number in range(9)}}
    checkpoint = save_checkpoint(tmp_path, advance(progress), None)
    progress.guard["photos"], progress.learnt_from = "xyz", {"photos": {}}
    told = r"photos: 0.jpg is gone, .*, 4.jpg is gone and 4 more\. Restore"
    with pytest.raises(TrainingError, match=told):
        load_checkpoint(checkpoint, progress)
    trainer = json.loads((checkpoint / "trainer.json").read_text())
    del trainer["learnt_from"]
    content = json.dumps(trainer).encode()
    (checkpoint / "trainer.json").write_bytes(content)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["trainer.json"] = {
        "size": len(content),
        "blake2b": hashlib.blake2b(content, digest_size=32).hexdigest(),
    }
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match="photos was abc and is xyz"):
        load_checkpoint(checkpoint, progress)
