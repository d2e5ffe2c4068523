"""Ended at random moments and started again, a run ends with the bytes of one that was left alone."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
from train_processes import COMMAND, finish, flags, prior_flags, started, steps_logged, wait_for_step
from training_runs import adapter_bytes, checkpoint_bytes, metrics, tensors

from dora_diffusion.training.checkpoint import checkpoints, step_of


def assert_only_whole_checkpoints(folder: Path) -> None:
    """Whatever counts as a checkpoint can be read to its end."""
    for checkpoint in checkpoints(folder):
        assert json.loads((checkpoint / "trainer.json").read_text())["step"] == step_of(checkpoint)
        for file in ("adapter.safetensors", "optimizer.safetensors"):
            assert tensors(checkpoint / file)


def assert_same_end(ours: Path, theirs: Path, steps: int) -> None:
    assert adapter_bytes(ours) == adapter_bytes(theirs)
    assert checkpoint_bytes(ours, steps) == checkpoint_bytes(theirs, steps)
    assert [row["step"] for row in metrics(ours)] == list(range(1, steps + 1))
    assert [row["loss"] for row in metrics(ours)] == [row["loss"] for row in metrics(theirs)]
    assert not [path.name for path in ours.rglob(".*")]
    assert json.loads((ours / "status.json").read_text())["state"] == "done"


def test_a_run_that_is_killed_once_and_stopped_once(tmp_path: Path) -> None:
    """SIGKILL, SIGTERM (which saves and leaves in order), and then to the end."""
    steps, chance = 24, random.Random(0)
    folder, whole, log = tmp_path / "run", tmp_path / "whole", tmp_path / "log"
    often = ["--checkpointing_steps", "3"]
    command = [*COMMAND, *flags(folder, steps, *often)]
    with started([*COMMAND, *flags(whole, steps, *often)], log) as reference:
        with started(command, log) as process:
            wait_for_step(process, folder, chance.randint(4, 8))
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert_only_whole_checkpoints(folder)
        killed_at = steps_logged(folder)
        assert 4 <= killed_at < steps
        with started(command, log) as process:
            wait_for_step(process, folder, killed_at + 2)
            process.terminate()
            assert process.wait(60) == 0
        assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
        stopped_at = len(metrics(folder))
        assert killed_at < stopped_at < steps
        assert step_of(checkpoints(folder)[-1]) == stopped_at
        assert f"Resuming from checkpoint-{stopped_at}." in finish(command)
        assert reference.wait(120) == 0
    assert_same_end(folder, whole, steps)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_is_killed_ten_times(tmp_path: Path, seed: int) -> None:
    """Three kills of ten hit the start: loading, class images, the first files. Two checkpoints are kept."""
    steps, chance = 40, random.Random(seed)
    folder, whole, log = tmp_path / "run", tmp_path / "whole", tmp_path / "log"
    rare = ["--checkpointing_steps", "2", "--checkpoints_total_limit", "2", "--lr_scheduler", "cosine"]
    command = [*COMMAND, *flags(folder, steps, *rare, *prior_flags(tmp_path / "class", 6))]
    early = {chance.randrange(10) for _ in range(3)}
    for kill in range(10):
        with started(command, log) as process:
            if kill in early:
                first = min(steps - 3, steps_logged(folder) + 1)
                wait_for_step(process, folder, first, until=time.monotonic() + chance.uniform(0, 8))
            else:
                wait_for_step(process, folder, min(steps - 3, steps_logged(folder) + chance.randint(1, 5)))
                time.sleep(chance.uniform(0, 0.2))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert_only_whole_checkpoints(folder)
    finish(command)
    finish([*COMMAND, *flags(whole, steps, *rare, *prior_flags(tmp_path / "other class", 6))])
    assert_same_end(folder, whole, steps)
