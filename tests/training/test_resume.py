"""A run that was interrupted ends with the very bytes of one that was not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import (
    PREDICTION,
    Heard,
    Killed,
    adapter_bytes,
    checkpoint_bytes,
    metrics,
    run_it,
    small_config,
    small_prior,
)

from dora_diffusion.config import TrainConfig
from dora_diffusion.registry import OPTIMIZERS
from dora_diffusion.training import Event
from dora_diffusion.training.events import Note, RunStarted, StepDone

N = 2
# Every registered optimizer, adamw with a warm-up as "schedule" below; those not named take the usual rate.
RATES = {name: {"prodigy": 1.0, "lion": 3e-4}.get(name, 1e-3) for name in OPTIMIZERS if name != "adamw"}
EVERYWHERE = {"adapter": {"train_text_encoder": True}, "run": {"gradient_accumulation_steps": 2}}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "prior": {"prior": small_prior},
    "accumulation": {"run": {"gradient_accumulation_steps": 2}},
    "text encoder": {"adapter": {"train_text_encoder": True}},
    "schedule": {"optim": {"lr_scheduler": "cosine", "lr_warmup_steps": 3}},
    "flips": {"data": {"random_flip": True}, "adapter": {"kind": "lora"}},
    "prediction": {"prior": PREDICTION, "loss": {"noise_offset": 0.1, "timestep_sampling": "stratified"}},
    "prediction, text encoder, accumulation, weights": {
        "prior": PREDICTION,
        "loss": {"loss_type": "huber", "snr_gamma": 5, "timestep_sampling": "stratified", "min_timestep": 100},
        "adapter": {"train_text_encoder": True},
        "run": {"gradient_accumulation_steps": 2},
    },
    "pivotal": {"adapter": {"new_tokens": 2}},
    "pivotal, text encoder, moving average, prior, accumulation": {
        "adapter": {"new_tokens": 2, "train_text_encoder": True},
        "optim": {"ema_decay": 0.9, "train_text_encoder_frac": 0.75},
        "prior": PREDICTION,
        "run": {"gradient_accumulation_steps": 2},
    },
    "moving average": {"optim": {"ema_decay": 0.9}},
    "rates": {"optim": {"lora_plus_ratio": 8, "magnitude_lr": 1e-2, "lr_scheduler": "cosine_with_restarts"}},
    **{name: {"optim": {"optimizer": name, "learning_rate": rate}, **EVERYWHERE} for name, rate in RATES.items()},
}


@pytest.fixture(params=list(SHAPES))
def make_config(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, int], TrainConfig]:
    """``make_config(name, steps)``: runs that differ in folder and length alone."""
    shape = SHAPES[request.param]

    def make(name: str, steps: int) -> TrainConfig:
        prior = shape.get("prior")
        prior = prior(tmp_path / "class") if callable(prior) else prior
        return small_config(tmp_path / name, steps, **{**shape, "prior": prior})

    return make


def assert_same_run(ours: Path, theirs: Path, steps: int) -> None:
    assert adapter_bytes(ours) == adapter_bytes(theirs)
    assert checkpoint_bytes(ours, steps) == checkpoint_bytes(theirs, steps)
    rows, expected = metrics(ours), metrics(theirs)
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    for row, other in zip(rows, expected, strict=True):
        assert {**row, "step_ms": 0} == {**other, "step_ms": 0}


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(make_config: Callable[[str, int], TrainConfig]) -> None:
    whole, parts = make_config("whole", 2 * N), make_config("parts", 2 * N)
    assert run_it(whole).step == 2 * N
    stopped = run_it(parts, stop_after=N)
    assert (stopped.stopped, stopped.step) == (True, N)
    assert adapter_bytes(parts.run.output_dir) != adapter_bytes(whole.run.output_dir)
    heard = Heard()
    result = run_it(parts, heard)
    assert (result.stopped, result.step) == (False, 2 * N)
    assert [event.step for event in heard.of(RunStarted)] == [N]
    assert [event.step for event in heard.of(StepDone)] == list(range(N + 1, 2 * N + 1))
    assert_same_run(parts.run.output_dir, whole.run.output_dir, 2 * N)


def test_a_finished_run_goes_on_when_more_steps_are_asked_for(tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "whole", 2 * N))
    run_it(small_config(tmp_path / "parts", N))
    heard = Heard()
    run_it(small_config(tmp_path / "parts", 2 * N), heard)
    assert [event.message for event in heard.of(Note)] == [f"Resuming from checkpoint-{N}."]
    assert_same_run(tmp_path / "parts", tmp_path / "whole", 2 * N)


def test_steps_lost_in_a_crash_are_done_again_and_logged_once(tmp_path: Path) -> None:
    """Killed after step 3, which no checkpoint holds, with half a line in the metrics file."""
    run = {"checkpointing_steps": 2}
    run_it(small_config(tmp_path / "whole", 5, run=run))

    def die(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            raise Killed

    with pytest.raises(Killed):
        run_it(small_config(tmp_path / "parts", 5, run=run), die)
    assert [row["step"] for row in metrics(tmp_path / "parts")] == [1, 2, 3]
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    heard = Heard()
    run_it(small_config(tmp_path / "parts", 5, run=run), heard)
    assert [event.step for event in heard.of(StepDone)] == [3, 4, 5]
    assert_same_run(tmp_path / "parts", tmp_path / "whole", 5)


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "whole", N))

    def die(event: Event) -> None:
        if isinstance(event, StepDone):
            raise Killed

    with pytest.raises(Killed):
        run_it(small_config(tmp_path / "parts", N), die)
    run_it(small_config(tmp_path / "parts", N))
    assert_same_run(tmp_path / "parts", tmp_path / "whole", N)


def test_a_run_killed_between_its_last_checkpoint_and_its_adapter_is_completed(
    finished_run: Path, copy_of_finished: Callable[[str], Path]
) -> None:
    folder = copy_of_finished("run")
    (folder / "pytorch_lora_weights.safetensors").unlink()
    heard = Heard()
    run_it(small_config(folder, 3, run={"checkpointing_steps": 1}), heard)
    assert heard.of(StepDone) == []
    assert adapter_bytes(folder) == adapter_bytes(finished_run)
    assert checkpoint_bytes(folder, 3) == checkpoint_bytes(finished_run, 3)


def test_a_named_checkpoint_is_gone_back_to(finished_run: Path, copy_of_finished: Callable[[str], Path]) -> None:
    folder = copy_of_finished("run")
    heard = Heard()
    longer = {"checkpointing_steps": 1, "resume_from_checkpoint": "checkpoint-1"}
    run_it(small_config(folder, 4, run=longer), heard)
    assert [event.step for event in heard.of(StepDone)] == [2, 3, 4]
    assert checkpoint_bytes(folder, 3) == checkpoint_bytes(finished_run, 3)
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4]


def test_a_resumed_run_keeps_the_attention_that_was_found(tmp_path: Path) -> None:
    """Where ``auto`` would take another now: here flash was asked for, and auto is sdpa."""
    run_it(small_config(tmp_path / "run", 4, model={"attention": "flash"}), stop_after=2)
    heard = Heard()
    run_it(small_config(tmp_path / "run", 4), heard)
    assert [event.facts["attention"] for event in heard.of(RunStarted)] == ["flash"]
    heard.clear()
    run_it(small_config(tmp_path / "fresh", 4), heard)
    assert [event.facts["attention"] for event in heard.of(RunStarted)] == ["sdpa"]
