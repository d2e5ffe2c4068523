"""Out of memory: told in plain words, or got over with the next smaller setting, exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_engine import make_engine
from training_runs import (
    PHOTOS,
    Heard,
    adapter_bytes,
    checkpoint_bytes,
    metrics,
    relative_difference,
    run_it,
    small_config,
    small_prior,
    weight_changes,
)

from dora_diffusion.config import RunConfig, TrainConfig
from dora_diffusion.errors import MachineError
from dora_diffusion.inference.out_of_memory import is_out_of_memory
from dora_diffusion.models import BaseModel
from dora_diffusion.training import assembly
from dora_diffusion.training.events import Note, StepDone
from dora_diffusion.training.recovery import Recovery
from dora_diffusion.training.stepper import Stepper

Patch = pytest.MonkeyPatch
STEPS = 4
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Faults:
    """Runs out of memory from a step on, as long as the setting is not small enough: ``fits`` says.

    A fault comes in the middle of the backward pass, when some layers have their gradients and others have not.
    """

    def __init__(self, patch: Patch, at_step: int, fits: Callable[[BaseModel, Tensor], bool]):
        self.raised = 0
        step_now = [0]
        predict_of, step_of = BaseModel.predict, Stepper.step

        def strike(gradient: Tensor) -> None:
            self.raised += 1
            raise torch.OutOfMemoryError(FULL)

        def predict(base: BaseModel, noisy_latents: Tensor, *given: Any) -> Tensor:
            if step_now[0] < at_step or fits(base, noisy_latents) or not torch.is_grad_enabled():
                return predict_of(base, noisy_latents, *given)
            hook = base.unet.up_blocks[0].register_forward_hook(
                lambda _, __, hidden: void(hidden.register_hook(strike))
            )
            try:
                return predict_of(base, noisy_latents, *given)
            finally:
                hook.remove()

        def step(stepper: Stepper) -> Any:
            step_now[0] = stepper._progress.step + 1
            return step_of(stepper)

        patch.setattr(BaseModel, "predict", predict)
        patch.setattr(Stepper, "step", step)


def void(_: object) -> None:
    """A forward hook that returns something would replace the output."""


def recomputes(base: BaseModel, latents: Tensor) -> bool:
    return bool(base.unet.is_gradient_checkpointing)


def at_most(samples: int) -> Callable[[BaseModel, Tensor], bool]:
    """Fits if a micro-batch has no more than so many samples."""
    return lambda base, latents: len(latents) <= samples


def spoil_update(patch: Patch, bad: list[int]) -> None:
    """Out of memory at the end of these updates, when everything has been moved already; each once."""
    schedule_of, updates = assembly.learning_rate_schedule, [0]

    def hook(*_: Any) -> None:
        updates[0] += 1
        if updates[0] in bad:
            raise torch.OutOfMemoryError(FULL)

    def scheduled(optimizer: torch.optim.Optimizer, *arguments: Any) -> Any:
        optimizer.register_step_post_hook(hook)
        return schedule_of(optimizer, *arguments)

    patch.setattr(assembly, "learning_rate_schedule", scheduled)


def notes(heard: Heard) -> list[str]:
    return [event.message for event in heard.of(Note)]


# ------------------------------------------------------------------------------------------------- auto_memory
@pytest.mark.parametrize("at_step", [1, 3, 20])
def test_gradient_checkpointing_is_switched_on_and_the_step_done_again(
    at_step: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    """It ends in the very bytes of the run that had it from the start: what is recomputed is what was kept."""
    run_it(small_config(tmp_path / "small", at_step + 1, run={"gradient_checkpointing": True}))
    faults, heard = Faults(monkeypatch, at_step, recomputes), Heard()
    run_it(small_config(tmp_path / "run", at_step + 1, run={"auto_memory": True}), heard)
    assert faults.raised == 1
    assert notes(heard) == [
        f"Step {at_step} ran out of memory and is done again; from now on with --gradient_checkpointing (slower, the "
        "same result)."
    ]
    assert [event.step for event in heard.of(StepDone)] == list(range(1, at_step + 2))
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(tmp_path / "small")


@pytest.mark.parametrize(("at_step", "batch", "parts", "accumulation"), [(1, 3, 3, 1), (3, 4, 2, 2)])
def test_a_batch_is_split_into_the_same_samples(
    at_step: int, batch: int, parts: int, accumulation: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    prior, adapter = small_prior(tmp_path / "class"), {"rank": 1}
    smaller = {"train_batch_size": batch // parts, "gradient_accumulation_steps": accumulation * parts}
    run_it(small_config(tmp_path / "small", 3, adapter=adapter, prior=prior, run=smaller))
    faults, heard = Faults(monkeypatch, at_step, at_most(2 * batch - 1)), Heard()
    how = {"train_batch_size": batch, "gradient_accumulation_steps": accumulation, "gradient_checkpointing": True}
    run_it(small_config(tmp_path / "run", 3, adapter=adapter, prior=prior, run={**how, "auto_memory": True}), heard)
    assert faults.raised == 1
    told = f"with --train_batch_size {batch // parts} --gradient_accumulation_steps {accumulation * parts} (slower"
    assert len(notes(heard)) == 1 and told in notes(heard)[0]
    ours, theirs = metrics(tmp_path / "run"), metrics(tmp_path / "small")
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-5)
    # Adam divides by the gradient's size: where that is next to nothing, the order of sums shows.
    assert relative_difference(weight_changes(tmp_path / "run"), weight_changes(tmp_path / "small")) < 1e-3


def test_one_setting_after_the_other(tmp_path: Path, monkeypatch: Patch) -> None:
    faults = Faults(monkeypatch, 2, lambda base, latents: recomputes(base, latents) and len(latents) == 1)
    heard = Heard()
    run_it(small_config(tmp_path / "run", 3, run={"train_batch_size": 4, "auto_memory": True}), heard)
    assert faults.raised == 3
    assert [
        "--gradient_checkpointing" in notes(heard)[0],
        "size 2" in notes(heard)[1],
        "size 1" in notes(heard)[2],
    ] == [
        True,
        True,
        True,
    ]


def test_a_resumed_run_goes_on_with_what_was_changed(tmp_path: Path, monkeypatch: Patch) -> None:
    """And neither part has to run out of memory again."""
    how = {"train_batch_size": 2, "auto_memory": True}
    fits = at_most(1)
    with monkeypatch.context() as patch:
        Faults(patch, 2, fits)
        run_it(small_config(tmp_path / "whole", STEPS, run=how))
    with monkeypatch.context() as patch:
        Faults(patch, 2, fits)
        run_it(small_config(tmp_path / "parts", STEPS, run=how), stop_after=2)
        faults = Faults(patch, 1, fits)
        run_it(small_config(tmp_path / "parts", STEPS, run=how))
        assert faults.raised == 0
    assert checkpoint_bytes(tmp_path / "parts", STEPS) == checkpoint_bytes(tmp_path / "whole", STEPS)


def test_the_optimizers_first_update_is_taken_back(tmp_path: Path, monkeypatch: Patch) -> None:
    """That is where it asks for the memory of its state."""
    run_it(small_config(tmp_path / "small", 3, run={"gradient_checkpointing": True}))
    spoil_update(monkeypatch, [1])
    heard = Heard()
    run_it(small_config(tmp_path / "run", 3, run={"auto_memory": True}), heard)
    assert notes(heard)[0].startswith("Step 1 ran out of memory and is done again")
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(tmp_path / "small")
    assert (
        checkpoint_bytes(tmp_path / "run", 3)["optimizer.safetensors"]
        == (checkpoint_bytes(tmp_path / "small", 3)["optimizer.safetensors"])
    )


def test_a_later_update_that_was_begun_is_not_done_again(tmp_path: Path, monkeypatch: Patch) -> None:
    """Half of it may have been applied: the run ends, and goes on from its checkpoint as if nothing had happened."""
    run = {"auto_memory": True, "checkpointing_steps": 1}
    run_it(small_config(tmp_path / "whole", 3, run=run))
    with monkeypatch.context() as patch:
        spoil_update(patch, [2])
        with pytest.raises(MachineError, match="Out of memory in step 2"):
            run_it(small_config(tmp_path / "run", 3, run=run))
    run_it(small_config(tmp_path / "run", 3, run=run))
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(tmp_path / "whole")


# ------------------------------------------------------------------------------------------------- messages
def test_the_message_lists_what_to_change_and_the_run_goes_on_with_it(tmp_path: Path, monkeypatch: Patch) -> None:
    run = {"train_batch_size": 4, "checkpointing_steps": 2}
    Faults(monkeypatch, 3, recomputes)
    adapter = {"train_text_encoder": True, "targets": "attn-mlp"}
    with pytest.raises(MachineError) as caught:
        run_it(small_config(tmp_path / "run", STEPS, adapter=adapter, run=run))
    assert str(caught.value) == (
        "Out of memory in step 3. What helps, in order of cost: --gradient_checkpointing (slower, the same result); "
        "--train_batch_size 2 --gradient_accumulation_steps 2 (slower, the same result); a --resolution below 64; no "
        "--train_text_encoder; --targets attn; a --rank below 4; --mixed_precision bf16. --auto_memory does the ones "
        "with the same result by itself. With --gradient_checkpointing or --auto_memory the same command goes on from "
        "the last checkpoint; the others make another run, which needs another --output_dir, or --overwrite."
    )
    heard = Heard()
    run = {**run, "gradient_checkpointing": True}
    run_it(small_config(tmp_path / "run", STEPS, adapter=adapter, run=run), heard)
    assert [event.step for event in heard.of(StepDone)] == [3, 4]


def test_when_nothing_is_left_the_message_says_what_else_helps(tmp_path: Path, monkeypatch: Patch) -> None:
    Faults(monkeypatch, 2, at_most(0))
    heard = Heard()
    with pytest.raises(MachineError) as caught:
        run_it(small_config(tmp_path / "run", 3, run={"train_batch_size": 2, "auto_memory": True}), heard)
    assert len(notes(heard)) == 2
    assert "in order of cost: a --resolution below 64; a --rank below 4" in str(caught.value)
    assert "--auto_memory does" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError(FULL), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_other_errors_are_not_swallowed(tmp_path: Path, monkeypatch: Patch) -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Stepper, "step", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run_it(small_config(tmp_path / "run", run={"auto_memory": True}))


def test_one_of_several_processes_does_not_begin_again_alone(monkeypatch: Patch) -> None:
    """The others wait for it inside the step."""
    Faults(monkeypatch, 1, recomputes)
    engine, heard = make_engine(PHOTOS), Heard()
    config = TrainConfig(run=RunConfig(auto_memory=True))
    recovery = Recovery(config, engine.stepper, engine.progress, lambda: None, lambda: None, 2, heard)
    with pytest.raises(MachineError, match="Out of memory in step 1"):
        recovery.step()
    assert heard == []


def test_float16s_gradients_are_unscaled_once_in_the_step_that_is_done_again(monkeypatch: Patch) -> None:
    """The fault comes between the unscaling and the update; the scale stays as it was."""
    plain, engine = make_engine(PHOTOS), make_engine(PHOTOS)
    for each in (plain, engine):
        each.progress.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    plain.stepper.step()
    clip, calls = torch.nn.utils.clip_grad_norm_, [0]

    def fault_once(*arguments: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == 1:
            raise torch.OutOfMemoryError(FULL)
        return clip(*arguments)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", fault_once)
    config = TrainConfig(run=RunConfig(auto_memory=True))
    Recovery(config, engine.stepper, engine.progress, lambda: None, lambda: None, 1, Heard()).step()
    assert calls == [2] and engine.progress.scaler.get_scale() == 2.0**8
    for ours, theirs in zip(engine.adapter.buffers, plain.adapter.buffers, strict=True):
        assert torch.equal(ours.parameter, theirs.parameter)
