"""Ended at random moments and started again, a run ends with the bytes of one that was left alone."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
from train_processes import COMMAND, finish, flags, prior_flags, started, steps_logged, wait_for_step
from training_runs import adapter_bytes, checkpoint_bytes, metrics, run_it, small_config, small_prior, tensors

from dora_diffusion.formats.checkpoint_folders import checkpoints, step_of
from dora_diffusion.training.checkpoint import MANIFEST

# Every step is saved, so that about every other moment is one of saving; all that a checkpoint can hold is in it.
SAVED = {"checkpointing_steps": 1, "checkpoints_total_limit": 2}
OPTIM = {"ema_decay": 0.9, "lr_scheduler": "cosine"}
SETTINGS = [f"--{name}={value}" for name, value in {**SAVED, **OPTIM}.items()]


def assert_only_whole_checkpoints(folder: Path) -> None:
    """Whatever counts as a checkpoint can be read to its end."""
    for checkpoint in checkpoints(folder):
        assert json.loads((checkpoint / "trainer.json").read_text())["step"] == step_of(checkpoint)
        for file, entry in json.loads((checkpoint / MANIFEST).read_text()).items():
            assert (checkpoint / file).stat().st_size == entry["size"]
        for file in ("adapter.safetensors", "optimizer.safetensors", "ema.safetensors"):
            assert tensors(checkpoint / file)


def assert_same_end(ours: Path, theirs: Path, steps: int) -> None:
    assert adapter_bytes(ours) == adapter_bytes(theirs)
    assert checkpoint_bytes(ours, steps) == checkpoint_bytes(theirs, steps)
    assert [row["step"] for row in metrics(ours)] == list(range(1, steps + 1))
    assert [row["loss"] for row in metrics(ours)] == [row["loss"] for row in metrics(theirs)]
    assert not [path.name for path in ours.rglob(".*")]
    assert json.loads((ours / "status.json").read_text())["state"] == "done"


def kill_at_random_moments(command: list[str], folder: Path, kills: int, steps: int, chance: random.Random) -> int:
    """Start, kill, look, again and again; how many of the kills hit a run that was training or saving.

    A quarter of them may hit the start: loading, class images, the first files.
    """
    hits = 0
    for _ in range(kills):
        with started(command, folder.with_name("log")) as process:
            reached = steps_logged(folder)
            if chance.random() < 0.25:
                soon = time.monotonic() + chance.uniform(0, 8)
                wait_for_step(process, folder, min(steps - 3, reached + 1), until=soon)
            else:
                wait_for_step(process, folder, min(steps - 3, reached + chance.randint(1, 2)))
                time.sleep(chance.uniform(0, 0.3))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        hits += steps_logged(folder) > reached
        assert_only_whole_checkpoints(folder)
    return hits


def test_a_run_that_is_killed_three_times_and_stopped_once(tmp_path: Path) -> None:
    """SIGKILL thrice, SIGTERM (which saves and leaves in order), and then to the end."""
    steps, chance = 24, random.Random(1)
    folder = tmp_path / "run"
    command = [*COMMAND, *flags(folder, steps, *SETTINGS)]
    assert kill_at_random_moments(command, folder, 3, steps, chance) >= 1
    reached = steps_logged(folder)
    with started(command, tmp_path / "log") as process:
        wait_for_step(process, folder, reached + 2)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM, "a shell would go on with an adapter that is half trained"
    assert f"Stopped after {steps_logged(folder)} steps" in (tmp_path / "log").read_text()
    assert "(the same command goes on)" in (tmp_path / "log").read_text()
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    stopped_at = len(metrics(folder))
    assert reached < stopped_at < steps
    assert step_of(checkpoints(folder)[-1]) == stopped_at
    assert f"Resuming from checkpoint-{stopped_at}." in finish(command)
    run_it(small_config(tmp_path / "whole", steps, optim=OPTIM, run=SAVED))
    assert_same_end(folder, tmp_path / "whole", steps)


def killed_often(tmp_path: Path, kills: int) -> None:
    """A run with prior preservation, killed at ``kills`` random moments, ends as it would have."""
    steps, folder = 2 * kills + 10, tmp_path / "run"
    command = [*COMMAND, *flags(folder, steps, *SETTINGS, *prior_flags(tmp_path / "class", 6))]
    assert kill_at_random_moments(command, folder, kills, steps, random.Random(2)) >= kills // 2
    finish(command)
    prior = small_prior(tmp_path / "other class", 6)
    run_it(small_config(tmp_path / "whole", steps, prior=prior, optim=OPTIM, run=SAVED))
    assert_same_end(folder, tmp_path / "whole", steps)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_that_is_killed_forty_times(tmp_path: Path) -> None:
    """Its fast sibling: the test above."""
    killed_often(tmp_path, 40)
