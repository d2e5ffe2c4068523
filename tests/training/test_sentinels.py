"""Sentinels: each thing that goes wrong in silence is broken on purpose, and named with cause and remedy."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_engine import make_engine
from training_runs import PHOTOS, Heard, adapter_bytes, checkpoint_bytes, metrics, run_it, small_config

from dora_diffusion.adapters import Adapter
from dora_diffusion.adapters.layer import AdapterLayer
from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import TrainingError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.checkpoint_folders import checkpoints
from dora_diffusion.models import BaseModel
from dora_diffusion.training import assembly
from dora_diffusion.training.batches import Batches
from dora_diffusion.training.events import Note, StepDone
from dora_diffusion.training.loss import Batch
from dora_diffusion.training.sentinels import finite, life
from dora_diffusion.training.sentinels.sentinel import Watched
from dora_diffusion.training.sentinels.words import prompt_findings, trigger_findings
from dora_diffusion.training.stepper import Losses

Patch = pytest.MonkeyPatch
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def with_injected(patch: Patch, change: Callable[[Adapter], None]) -> None:
    """Change every adapter as soon as it is made."""
    inject = assembly.inject

    def injected(*arguments: Any) -> Adapter:
        adapter = inject(*arguments)
        with torch.no_grad():
            change(adapter)
        return adapter

    patch.setattr(assembly, "inject", injected)


def with_optimizer(patch: Patch, change: Callable[[torch.optim.Optimizer], None]) -> None:
    """Change every optimizer as soon as it is made: before it gets its schedule."""
    schedule_of = assembly.learning_rate_schedule

    def scheduled(optimizer: torch.optim.Optimizer, *arguments: Any) -> Any:
        change(optimizer)
        return schedule_of(optimizer, *arguments)

    patch.setattr(assembly, "learning_rate_schedule", scheduled)


def after_updates(patch: Patch, change: Callable[[torch.optim.Optimizer], None]) -> None:
    """Let ``change`` spoil what every update of the optimizer leaves."""

    def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        with torch.no_grad():
            change(optimizer)

    def watch(optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_post_hook(hook)

    with_optimizer(patch, watch)


def spoil_latents(patch: Patch, bad: set[int]) -> None:
    """NaN in the latents of these steps, counted from 1."""
    batch_of = Batches.batch

    def batch(self: Batches, step: int, micro_step: int) -> Batch:
        batch = batch_of(self, step, micro_step)
        return replace(batch, latents=batch.latents * float("nan")) if step + 1 in bad else batch

    patch.setattr(Batches, "batch", batch)


def spoil_gradients(patch: Patch) -> None:
    """The loss stays finite, its gradient does not."""
    predict_of = BaseModel.predict

    def predict(self: BaseModel, *arguments: Any) -> Tensor:
        prediction = predict_of(self, *arguments)
        if prediction.requires_grad:
            prediction.register_hook(lambda gradient: gradient * float("nan"))
        return prediction

    patch.setattr(BaseModel, "predict", predict)


def kill_layer(patch: Patch, name: str, from_step: int = 1) -> None:
    """From a step on, nothing of this layer's adapter reaches the output."""
    forward_of, forwards = AdapterLayer.forward, [0]

    def forward(self: AdapterLayer, x: Tensor) -> Tensor:
        if self.slot.name != name or not torch.is_grad_enabled():
            return forward_of(self, x)
        forwards[0] += 1
        return self.base(x) if forwards[0] >= from_step else forward_of(self, x)

    patch.setattr(AdapterLayer, "forward", forward)


def notes(heard: Heard) -> list[str]:
    return [event.message for event in heard.of(Note)]


def fails(config: TrainConfig, message: str) -> Heard:
    """The run ends with this message; what it said before."""
    heard = Heard()
    with pytest.raises(TrainingError, match=message):
        run_it(config, heard)
    return heard


# ------------------------------------------------------------------------------------------------- precision
def test_an_adapter_in_bfloat16(tmp_path: Path, monkeypatch: Patch) -> None:
    def cast(adapter: Adapter) -> None:
        buffer = next(b for b in adapter.buffers if b.role == "magnitude")
        buffer.parameter.grad = None
        buffer.parameter.data = buffer.parameter.data.bfloat16()

    with_injected(monkeypatch, cast)
    heard = fails(small_config(tmp_path / "run"), r"The adapter \(unet's magnitude\) is bfloat16.*--mixed_precision")
    assert heard.of(StepDone) == []


def test_optimizer_state_in_half_precision(tmp_path: Path, monkeypatch: Patch) -> None:
    def cast(optimizer: torch.optim.Optimizer) -> None:
        for state in optimizer.state.values():
            state["exp_avg_sq"] = state["exp_avg_sq"].half()

    after_updates(monkeypatch, cast)
    heard = fails(small_config(tmp_path / "run"), r"The optimizer's exp_avg_sq \(unet's A\) is float16.*--optimizer")
    assert [event.step for event in heard.of(StepDone)] == [1]


# ------------------------------------------------------------------------------------------------- start
@pytest.mark.parametrize("role", ["B", "magnitude"])
def test_a_fresh_adapter_that_changes_the_base(tmp_path: Path, monkeypatch: Patch, role: str) -> None:
    def move(adapter: Adapter) -> None:
        getattr(adapter.layers[LAYER].slot, role).add_(1e-3)

    with_injected(monkeypatch, move)
    heard = fails(small_config(tmp_path / "run"), "The fresh adapter changes the base's output by .*--kind lora")
    assert heard.of(StepDone) == []


def test_the_text_encoders_adapter_is_compared_too(tmp_path: Path, monkeypatch: Patch) -> None:
    def move(adapter: Adapter) -> None:
        next(layer for name, layer in adapter.layers.items() if name.startswith("text_encoder")).slot.B.add_(0.1)

    with_injected(monkeypatch, move)
    fails(small_config(tmp_path / "run", adapter={"train_text_encoder": True}), "The fresh adapter changes the base")


def test_a_device_that_never_gives_the_same_twice_is_told_and_trained_on(tmp_path: Path, monkeypatch: Patch) -> None:
    predict = BaseModel.predict
    monkeypatch.setattr(BaseModel, "predict", lambda self, *given: predict(self, *given) + 1e-6 * torch.rand(()))
    heard = Heard()
    assert run_it(small_config(tmp_path / "run"), heard).step == 2
    assert [note for note in notes(heard) if "gives the base's own output differently each time" in note]


# ------------------------------------------------------------------------------------------------- rate
def test_a_schedule_that_is_not_applied(tmp_path: Path, monkeypatch: Patch) -> None:
    schedule_of = assembly.learning_rate_schedule

    def stuck(*arguments: Any) -> Any:
        schedule = schedule_of(*arguments)
        monkeypatch.setattr(schedule, "step", lambda: None)
        return schedule

    monkeypatch.setattr(assembly, "learning_rate_schedule", stuck)
    warm_up = {"learning_rate": 1e-3, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 2}
    heard = fails(
        small_config(tmp_path / "run", 4, optim=warm_up),
        "Step 2 would be taken at learning rate 0, and the schedule says 0.0005.*--lr_scheduler constant",
    )
    assert [event.step for event in heard.of(StepDone)] == [1]


# ------------------------------------------------------------------------------------------------- finite
def test_one_step_that_is_not_finite_is_left_out(tmp_path: Path, monkeypatch: Patch) -> None:
    spoil_latents(monkeypatch, {3})
    heard, run = Heard(), {"checkpointing_steps": 1, "checkpoints_total_limit": None}
    run_it(small_config(tmp_path / "run", 4, run=run), heard)
    assert notes(heard) == ["Step 3: the loss is not finite; the step is left out (1 so far)."]
    rows = metrics(tmp_path / "run")
    assert [row["loss"] is None for row in rows] == [False, False, True, False]
    assert [row.get("applied", True) for row in rows] == [True, True, False, True]
    two, three, four = (checkpoint_bytes(tmp_path / "run", step)["adapter.safetensors"] for step in (2, 3, 4))
    assert two == three != four


def test_a_gradient_that_is_not_finite_is_left_out_too(tmp_path: Path, monkeypatch: Patch) -> None:
    spoil_gradients(monkeypatch)
    heard = fails(small_config(tmp_path / "run", 4), "The gradient of steps 1 to 3 is not finite")
    assert notes(heard)[0] == "Step 1: the gradient is not finite; the step is left out (1 so far)."


def test_three_in_a_row_stop_the_run_and_keep_the_last_good_checkpoint(tmp_path: Path, monkeypatch: Patch) -> None:
    run = {"checkpointing_steps": 2}
    run_it(small_config(tmp_path / "good", 2, run=run))
    spoil_latents(monkeypatch, {3, 4, 5})
    cause = "loss of steps 3 to 5 is not finite.*checkpoint-4 is the last good checkpoint.*lower --learning_rate"
    fails(small_config(tmp_path / "run", 8, run=run), cause)
    assert not (tmp_path / "run" / WEIGHTS_NAME).exists()
    kept = [path.name for path in checkpoints(tmp_path / "run")]
    assert kept == ["checkpoint-2", "checkpoint-4"]
    name = "adapter.safetensors"
    assert checkpoint_bytes(tmp_path / "run", 4)[name] == checkpoint_bytes(tmp_path / "good", 2)[name]


def test_two_in_a_row_twice_do_not(tmp_path: Path, monkeypatch: Patch) -> None:
    spoil_latents(monkeypatch, {2, 3, 5, 6})
    heard = Heard()
    assert run_it(small_config(tmp_path / "run", 7), heard).step == 7
    assert notes(heard)[-1] == "Step 6: the loss is not finite; the step is left out (4 so far)."


def test_steps_in_a_row_are_counted_over_a_resume(tmp_path: Path, monkeypatch: Patch) -> None:
    spoil_latents(monkeypatch, {2, 3, 4})
    run_it(small_config(tmp_path / "run", 6), stop_after=3)
    fails(small_config(tmp_path / "run", 6), "loss of steps 2 to 4 is not finite")


def test_the_search_for_float16s_scale_is_not_counted(monkeypatch: Patch) -> None:
    """Sixteen overflows halve the scale from 65 536 to 1; one more says that no scale helps."""
    spoil_gradients(monkeypatch)
    engine = make_engine(PHOTOS)
    engine.progress.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**2)
    heard = Heard()
    watched = Watched(TrainConfig(), engine.base, engine.batches, engine.progress, PHOTOS, heard)
    check = finite.Finite(watched)
    for scale in (2.0, 1.0, 0.5):
        losses = engine.stepper.step()
        assert not losses.applied and engine.progress.scaler.get_scale() == scale
        check.after_step(losses)
    assert engine.progress.record.skipped == engine.progress.record.skipped_in_a_row == 2
    check_again = Losses(0.1, 0.1, 0.0, False)
    with pytest.raises(TrainingError, match="float16 overflows.*no checkpoint was written.*--mixed_precision bf16"):
        check.after_step(check_again)


# ------------------------------------------------------------------------------------------------- life
def test_a_layer_that_no_output_depends_on(tmp_path: Path, monkeypatch: Patch) -> None:
    """Named with its tensors, at the twentieth step of a longer run."""
    kill_layer(monkeypatch, LAYER)
    message = rf"{LAYER}\.A, {LAYER}\.B, {LAYER}\.magnitude had no gradient in 20 steps: no output.*--targets"
    heard = fails(small_config(tmp_path / "run", 30, adapter={"rank": 1}), message)
    assert heard.of(StepDone)[-1].step == 20


def test_a_short_run_is_judged_at_its_end(tmp_path: Path, monkeypatch: Patch) -> None:
    kill_layer(monkeypatch, LAYER)
    heard = fails(small_config(tmp_path / "run", 3), "had no gradient in 3 steps")
    assert heard.of(StepDone)[-1].step == 3
    run_it(small_config(tmp_path / "off", 3, run={"sentinels": False}))  # and on one's own word, not at all


@pytest.mark.parametrize("role", ["A", "magnitude"])
def test_a_tensor_that_is_put_back_after_every_update(tmp_path: Path, monkeypatch: Patch, role: str) -> None:
    kept: list[Tensor] = []

    def injected(adapter: Adapter) -> None:
        kept.extend([adapter.layers[LAYER].slot.__dict__[role], getattr(adapter.layers[LAYER].slot, role).clone()])

    def put_back(optimizer: torch.optim.Optimizer) -> None:
        kept[0].copy_(kept[1])

    with_injected(monkeypatch, injected)
    after_updates(monkeypatch, put_back)
    message = rf"^{LAYER}\.{role} had a gradient and did not move in 3 steps.*--optimizer adamw"
    fails(small_config(tmp_path / "run", 3), message)


def test_a_learning_rate_of_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    def still(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups[3:]:  # after the UNet's A, B and magnitudes
            group["lr"] = 0.0

    with_optimizer(monkeypatch, still)
    monkeypatch.setattr(life, "STEPS", 4)
    config = small_config(tmp_path / "run", 6, adapter={"train_text_encoder": True, "rank": 1})
    fails(config, "The learning rate of text_encoder was 0 in all of the first 4 steps.*--lr_warmup_steps")


@pytest.mark.parametrize("steps", [1, 2])
def test_nothing_is_expected_that_cannot_be_yet(tmp_path: Path, steps: int) -> None:
    """In the first step B is 0, so A has no gradient; with a warm-up from 0 that is the second."""
    warm_up = {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 1} if steps == 2 else {}
    assert run_it(small_config(tmp_path / "run", steps, optim=warm_up)).step == steps


def test_life_is_judged_over_the_parts_of_a_run(tmp_path: Path, monkeypatch: Patch) -> None:
    """A layer that dies after the second step has lived; one that is dead in both parts has not."""
    with monkeypatch.context() as patch:
        kill_layer(patch, LAYER, from_step=3)
        run_it(small_config(tmp_path / "run", 4), stop_after=2)
        assert run_it(small_config(tmp_path / "run", 4)).step == 4
    kill_layer(monkeypatch, LAYER)
    run_it(small_config(tmp_path / "dead", 4), stop_after=2)
    fails(small_config(tmp_path / "dead", 4), "had no gradient in 4 steps")


def test_a_text_encoder_that_was_stopped_is_not_waited_for(tmp_path: Path, monkeypatch: Patch) -> None:
    """Stopped after its first step: B has moved, and A never had a gradient."""

    def stop(adapter: Adapter) -> Callable[[Any], None]:
        def listen(event: Any) -> None:
            if isinstance(event, StepDone):
                for plan in adapter.plans:
                    slot = adapter.layers[plan.name].slot
                    for leaf in (slot.A, slot.B, slot.magnitude):
                        leaf.requires_grad_(plan.component == "unet")

        return listen

    made: list[Adapter] = []
    with_injected(monkeypatch, made.append)
    config = small_config(tmp_path / "run", 4, adapter={"train_text_encoder": True, "rank": 1})
    assert run_it(config, lambda event: stop(made[0])(event)).step == 4


def test_sentinels_change_nothing(finished_run: Path, tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "run", 3, run={"checkpointing_steps": 1, "sentinels": False}))
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(finished_run)


def test_without_sentinels_a_run_of_bad_steps_is_not_stopped(tmp_path: Path, monkeypatch: Patch) -> None:
    """The steps are left out all the same: nobody wants them in the adapter."""
    spoil_latents(monkeypatch, {1, 2, 3, 4})
    heard = Heard()
    assert run_it(small_config(tmp_path / "run", 4, run={"sentinels": False}), heard).step == 4
    assert notes(heard) == [] and [event.applied for event in heard.of(StepDone)] == [False] * 4


# ------------------------------------------------------------------------------------------------- words
class Clip:
    """As much of a tokenizer with CLIP's numbers as the checks ask for."""

    unk_token, model_max_length = "<|endoftext|>", 77
    words = {"cat</w>": 2368, "sks</w>": 48136, "zw": 9000, "x</w>": 343, "big</w>": 1500}

    def __len__(self) -> int:
        return 49408

    def tokenize(self, text: str) -> list[str]:
        return ["zw", "x</w>"] if text == "zwx" else [f"{word}</w>" for word in text.split()]

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.words[token]


@pytest.mark.parametrize(
    ("trigger", "told"),
    [
        ("sks", None),
        ("zwx", None),
        ("cat", "a common word"),
        ("big cat", "a common word"),
        ("sks cat", None),
        ("one two three four", "is 4 tokens"),
    ],
)
def test_triggers_in_clips_vocabulary(trigger: str, told: str | None) -> None:
    found = list(trigger_findings(Clip(), trigger))
    assert len(found) == (told is not None) and (told is None or told in found[0])


@pytest.mark.parametrize(
    ("trigger", "told"),
    [("sks", None), ("ohwx", None), ("teapot", "a common word"), ("abcdefg", "is 6 tokens"), ("日本", "does not know")],
)
def test_triggers_in_toyboxs_vocabulary(trigger: str, told: str | None, toybox: BaseModel) -> None:
    found = list(trigger_findings(toybox.pipe.tokenizer, trigger))
    assert len(found) == (told is not None) and (told is None or told in found[0])


def test_a_prompt_that_is_cut() -> None:
    assert list(prompt_findings(Clip(), "a " * 75)) == []
    (found,) = prompt_findings(Clip(), "a " * 75 + "b c")
    assert found == "A prompt is longer than the text encoder's 75 tokens and is cut; lost is: 'b c'."


def test_a_run_tells_what_is_odd_about_its_words(tmp_path: Path) -> None:
    data = {"trigger": "cat", "instance_prompt": "a photo of a toy"}
    heard = Heard()
    config = small_config(tmp_path / "run", 1, data=data, run={"validation_prompt": []})
    run_it(config, heard)
    told = notes(heard)
    assert len(told) == 2 and "'cat' is in no caption" in told[0] and "common word" in told[1]
    heard.clear()
    run_it(small_config(tmp_path / "good", 1), heard)
    assert notes(heard) == []
