"""Prompts are encoded once while the text encoder is frozen, and for every batch while it is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_engine import make_engine
from training_runs import run_it, small_config, small_prior

from dora_diffusion.config import AdapterConfig, OptimConfig
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training.batches import Prompts


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
    prompts = Prompts(base, "a photo of sks teapot", "a photo of a teapot", trained=False)
    rows = prompts.conditioning(torch.tensor([False, True, True]), torch.zeros(3, 6))["encoder_hidden_states"]
    with torch.no_grad():
        instance, of_class = (
            base.encode_prompts([prompt])["encoder_hidden_states"][0]
            for prompt in ("a photo of sks teapot", "a photo of a teapot")
        )
    for row, expected in zip(rows, (instance, of_class, of_class), strict=True):
        torch.testing.assert_close(row, expected)
    assert not torch.allclose(instance, of_class)
    assert not rows.requires_grad


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
