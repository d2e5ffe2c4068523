"""``accelerate launch``: one process is a plain run; two processes are one with twice the batch."""

from pathlib import Path

import pytest
from torch import Tensor
from train_processes import COMMAND, finish, flags, launched, prior_flags
from training_runs import (
    PREDICTION,
    adapter_bytes,
    metrics,
    relative_difference,
    run_it,
    small_config,
    small_prior,
    tensors,
    weight_changes,
)

STEPS = 4
# Two processes add two halves of a sum that one adds in one go: gradients differ by about 1e-6 of their size, and more
# where terms cancel. AdamW divides every entry by its own size, so in the first steps an entry that is almost nothing
# moves as far as any other, and takes its wrong digits with it. Measured here: means of the gradients 2e-5 apart,
# adapters 7e-5; trained on other samples, or on half of them, they are 0.5 apart and more.
GRADIENT_ORDER, ADAPTER_ORDER = 1e-4, 5e-4


def mean_gradients(folder: Path) -> dict[str, Tensor]:
    """AdamW's running means of the gradients, as the last checkpoint has them."""
    state = tensors(folder / f"checkpoint-{STEPS}" / "optimizer.safetensors")
    return {name: value for name, value in state.items() if name.endswith(".exp_avg")}


def test_one_launched_process_is_a_plain_run(finished_run: Path, tmp_path: Path) -> None:
    finish([*launched(1), *flags(tmp_path / "run", 3)])
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(finished_run)


def test_two_processes_share_one_steps_timesteps_and_the_bases_answers(tmp_path: Path) -> None:
    """Stratified timesteps, offset noise, timestep weights and the prior term by prediction, over both."""
    loss = {"timestep_sampling": "stratified", "noise_offset": 0.1, "snr_gamma": 5.0}
    given = [text for name, value in loss.items() for text in (f"--{name}", str(value))]
    more = ["--with_prior_preservation", "--prior_kind", "prediction", "--max_grad_norm", "0", *given]
    finish([*launched(2), *flags(tmp_path / "two", STEPS, *more)])
    run_it(
        small_config(
            tmp_path / "one",
            STEPS,
            prior=PREDICTION,
            loss=loss,
            optim={"max_grad_norm": 0},
            run={"train_batch_size": 2},
        )
    )
    ours, theirs = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    for name in ("loss", "instance_loss", "prior_loss"):
        assert [row[name] for row in ours] == pytest.approx([row[name] for row in theirs], rel=1e-3, abs=1e-9)
    ours_mean, theirs_mean = (mean_gradients(tmp_path / name) for name in ("two", "one"))
    assert relative_difference(ours_mean, theirs_mean) < GRADIENT_ORDER


@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path, prior: bool) -> None:
    more = prior_flags(tmp_path / "class", 5) if prior else []
    said = finish([*launched(2), *flags(tmp_path / "two", STEPS, "--max_grad_norm", "0", *more)])
    assert "cpu:0 x 2" in said or "cpu x 2" in said
    settings = small_prior(tmp_path / "one class", 5) if prior else {}
    config = small_config(
        tmp_path / "one", STEPS, prior=settings, optim={"max_grad_norm": 0}, run={"train_batch_size": 2}
    )
    run_it(config)
    ours, theirs = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [row["step"] for row in ours] == list(range(1, STEPS + 1))
    for name in ("loss", "instance_loss", "prior_loss") if prior else ("loss", "instance_loss"):
        assert [row[name] for row in ours] == pytest.approx([row[name] for row in theirs], rel=1e-4)
    assert relative_difference(weight_changes(tmp_path / "two"), weight_changes(tmp_path / "one")) < ADAPTER_ORDER
    # AdamW's step does not show whether gradients were averaged or added up; its moments do.
    ours_mean, theirs_mean = (mean_gradients(tmp_path / name) for name in ("two", "one"))
    assert relative_difference(ours_mean, theirs_mean) < GRADIENT_ORDER
    if prior:
        drawn = sorted((tmp_path / "class").rglob("*.png"))
        assert [path.name for path in drawn] == [f"{number:05d}.png" for number in range(5)]


PRODIGY = ["--optimizer", "prodigy", "--learning_rate", "1", "--ema_decay", "0.9"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], PRODIGY], ids=["adamw", "prodigy, moving average"])
def test_two_processes_stop_and_resume_together(tmp_path: Path, more: list[str]) -> None:
    """A run of two processes goes on with two, to the same bytes, and not with one.

    Its fast siblings: the test above, and test_resume.py.
    """
    often = ["--checkpointing_steps", "2", *more]
    finish([*launched(2), *flags(tmp_path / "whole", STEPS, *often)])
    finish([*launched(2), *flags(tmp_path / "parts", 2, *often)])
    finish([*launched(2), *flags(tmp_path / "parts", STEPS, *often)])
    assert adapter_bytes(tmp_path / "parts") == adapter_bytes(tmp_path / "whole")
    with pytest.raises(AssertionError, match="global batch was 2 and is 1"):
        finish([*COMMAND, *flags(tmp_path / "parts", STEPS + 1, *often)])


def test_processes_that_cannot_share_the_work_do_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launched for two GPUs on a machine without, each process would train for itself into the same folder."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    command = [*launched(2), *flags(tmp_path / "run", STEPS)]
    command.remove("--cpu")
    with pytest.raises(AssertionError, match="2 processes were launched and found no GPUs.*Add --cpu"):
        finish(command)
    assert list(tmp_path.iterdir()) == []
