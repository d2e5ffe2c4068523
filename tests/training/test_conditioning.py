"""Prompts are encoded once while the text encoder is frozen, and for every batch while it is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_engine import make_engine
from training_runs import PHOTOS, run_it, small_config, small_prior

from dora_diffusion.config import AdapterConfig, OptimConfig
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training.batches import Prompts
from dora_diffusion.training.optim import stop_gradients_of_text_encoders


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The prompts of every call of ``encode_prompts``, as they come."""
    calls: list[list[str]] = []
    real = BaseModel.encode_prompts

    def encode_prompts(base: BaseModel, prompts: list[str]) -> dict[str, Tensor]:
        calls.append(list(prompts))
        return real(base, prompts)

    monkeypatch.setattr(BaseModel, "encode_prompts", encode_prompts)
    return calls


@pytest.mark.parametrize(("trained", "calls"), [(False, 1), (True, 4)], ids=["frozen", "trained"])
def test_a_run_encodes_its_prompts_no_more_often_than_they_change(
    tmp_path: Path, encoded: list[list[str]], trained: bool, calls: int
) -> None:
    """Two steps of two micro-steps."""
    adapter = {"train_text_encoder": trained, "rank": 1}
    run = {"gradient_accumulation_steps": 2, "sentinels": False}  # they look at a batch of their own first
    run_it(small_config(tmp_path / "run", 2, adapter=adapter, run=run))
    assert encoded == [["a photo of sks teapot"]] * calls


def test_the_class_images_get_the_class_prompt(tmp_path: Path, encoded: list[list[str]]) -> None:
    run_it(small_config(tmp_path / "run", 1, adapter={"rank": 1}, prior=small_prior(tmp_path / "class", 1)))
    assert encoded == [["a photo of sks teapot", "a photo of a teapot"]]


def test_each_sample_gets_its_prompt() -> None:
    base = load_base("toybox")
    of_subject, of_a_class = "a photo of sks teapot", "a photo of a teapot"
    prompts = Prompts(base, [of_subject, of_a_class], trained=False)
    wanted = [of_subject, of_a_class, of_a_class]
    rows = prompts.conditioning(wanted, torch.zeros(3, 6))["encoder_hidden_states"]
    with torch.no_grad():
        instance, of_class = (
            base.encode_prompts([prompt])["encoder_hidden_states"][0]
            for prompt in ("a photo of sks teapot", "a photo of a teapot")
        )
    for row, expected in zip(rows, (instance, of_class, of_class), strict=True):
        torch.testing.assert_close(row, expected)
    assert not torch.allclose(instance, of_class)
    assert not rows.requires_grad


@torch.no_grad()
def hidden_states(base: BaseModel, prompt: str) -> Tensor:
    return base.encode_prompts([prompt])["encoder_hidden_states"][0]


def test_a_frozen_prompt_is_encoded_once(encoded: list[list[str]]) -> None:
    """Known prompts together before the first batch; others when they come, alone, and never again."""
    prompts = Prompts(load_base("toybox"), ["a", "b"], trained=False)
    assert encoded == [["a", "b"]]
    for wanted in (["a", "a"], ["b", "c"], ["d", "c", "d"], ["c"]):
        prompts.conditioning(wanted, torch.zeros(len(wanted), 6))
    assert encoded == [["a", "b"], ["c"], ["d"]]


def test_an_encoding_does_not_depend_on_its_company() -> None:
    """A resumed run meets a caption in another batch than before, and must see the same bytes."""
    base = load_base("toybox")
    first, second = (Prompts(base, [], trained=False) for _ in range(2))
    framing = torch.zeros(2, 6)
    together = first.conditioning(["a mug", "a red mug on grass"], framing)["encoder_hidden_states"]
    second.conditioning(["a mug", "a cat"], framing)
    later = second.conditioning(["a red mug on grass", "a mug"], framing)["encoder_hidden_states"]
    assert torch.equal(together, later.flip(0))
    assert torch.equal(together[0], hidden_states(base, "a mug"))


def test_what_is_kept_of_drawn_captions_is_bounded(encoded: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_diffusion.training.batches.OF_DRAWN", 2)
    prompts = Prompts(load_base("toybox"), ["known"], trained=False)
    for wanted in ("a", "b", "a", "c", "a", "known"):
        prompts.conditioning([wanted], torch.zeros(1, 6))
    assert encoded == [["known"], ["a"], ["b"], ["c"], ["a"]]  # c pushed a out, the oldest; known stays


def test_many_known_prompts_are_encoded_in_parts(encoded: list[list[str]]) -> None:
    base = load_base("toybox")
    names = [f"mug {number}" for number in range(70)]
    prompts = Prompts(base, names, trained=False)
    assert [len(part) for part in encoded] == [16, 16, 16, 16, 6]
    rows = prompts.conditioning([names[69], names[3]], torch.zeros(2, 6))["encoder_hidden_states"]
    torch.testing.assert_close(rows[0], hidden_states(base, names[69]))
    torch.testing.assert_close(rows[1], hidden_states(base, names[3]))


def test_a_trained_text_encoder_sees_each_prompt_once_a_batch(encoded: list[list[str]]) -> None:
    base = load_base("toybox")
    prompts = Prompts(base, ["a", "b"], trained=True)
    assert encoded == []
    rows = prompts.conditioning(["b", "c", "b"], torch.zeros(3, 6))["encoder_hidden_states"]
    assert encoded == [["b", "c"]]
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])


def test_a_trained_text_encoder_is_followed(subject_photos: Path) -> None:
    engine = make_engine(subject_photos, adapter=AdapterConfig(rank=2, train_text_encoder=True))
    conditioning: list[Any] = []
    for _ in range(2):
        conditioning.append(engine.batches.batch(0, 0).conditioning["encoder_hidden_states"].detach())
        engine.stepper.step()
    assert not torch.equal(*conditioning)


def test_both_parts_move_at_their_own_rate(subject_photos: Path) -> None:
    """AdamW's first step moves every number that has a gradient by the learning rate."""
    rates = OptimConfig(learning_rate=1e-3, text_encoder_lr=2e-5, max_grad_norm=0)
    engine = make_engine(subject_photos, adapter=AdapterConfig(rank=2, train_text_encoder=True), optim=rates)
    engine.stepper.step()
    moved = {b.component: float(b.parameter.detach().abs().max()) for b in engine.adapter.buffers if b.role == "B"}
    assert moved == pytest.approx({"unet": 1e-3, "text_encoder": 2e-5}, rel=0.01)


def test_what_a_gradient_still_flows_into_is_not_kept(encoded: list[list[str]]) -> None:
    """Nor what is encoded where gradients are off, which says nothing."""
    engine = make_engine(PHOTOS, adapter=AdapterConfig(rank=2, train_text_encoder=True))
    prompts = Prompts(engine.base, [], trained=True)
    prompts.stand_still()
    encoded.clear()
    framing = torch.zeros(1, 6)
    moving = prompts.conditioning(["a"], framing)["encoder_hidden_states"]
    with torch.no_grad():
        prompts.conditioning(["a"], framing)
    stop_gradients_of_text_encoders(engine.adapter)
    once, again = (prompts.conditioning(["a"], framing)["encoder_hidden_states"] for _ in range(2))
    assert encoded == [["a"]] * 3
    assert moving.requires_grad and torch.equal(once, again) and torch.equal(once, moving)
