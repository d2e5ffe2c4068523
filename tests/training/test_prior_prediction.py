"""Prior preservation by the base's own prediction: what is asked, of whom, and what it keeps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from training_engine import Engine, make_engine
from training_runs import PREDICTION, Heard, metrics, relative_difference, run_it, small_config, weight_changes

from dora_diffusion.config import AdapterConfig, LossConfig
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training.events import ClassImages, RunStarted
from dora_diffusion.training.loss import Batch, denoising_loss

CLASS_PROMPT = "a teapot"  # the engine's


def move(engine: Engine) -> None:
    """Train the adapter away from the base, in every tensor."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for buffer in engine.adapter.buffers:
            buffer.parameter.add_(torch.randn(buffer.parameter.shape, generator=draw), alpha=0.02)


def asked_again(engine: Engine, photos: Batch) -> Batch:
    assert engine.prior_prediction is not None
    return engine.prior_prediction.beside(photos)


def plain_prediction(base: BaseModel, batch: Batch, rows: slice) -> Tensor:
    """What a base that never saw an adapter predicts for these rows, asked for the class."""
    scheduler = make_scheduler(base)
    noisy = scheduler.add_noise(batch.latents[rows], batch.noise[rows], batch.timesteps[rows])
    hidden = base.encode_prompts([CLASS_PROMPT])["encoder_hidden_states"].expand(len(noisy), -1, -1)
    return base.predict(noisy, batch.timesteps[rows], {"encoder_hidden_states": hidden})


def make_scheduler(base: BaseModel) -> Any:
    return DDPMScheduler.from_config(base.pipe.scheduler.config)


@pytest.mark.parametrize("text_encoder", [False, True], ids=["unet", "text encoder too"])
@torch.no_grad()
def test_every_photo_is_asked_again_for_the_class_and_the_base_answers(
    subject_photos: Path, text_encoder: bool
) -> None:
    how = AdapterConfig(rank=2, train_text_encoder=text_encoder)
    engine = make_engine(subject_photos, batch_size=2, prediction=True, adapter=how)
    move(engine)
    photos = engine.batches.batch(0, 0)
    batch = asked_again(engine, photos)
    for name in ("latents", "noise", "timesteps"):
        once, twice = getattr(photos, name), getattr(batch, name)
        assert torch.equal(twice[:2], once) and torch.equal(twice[2:], once)
    assert batch.is_prior.tolist() == [False, False, True, True]
    hidden, asked = photos.conditioning["encoder_hidden_states"], batch.conditioning["encoder_hidden_states"]
    assert torch.equal(asked[:2], hidden)
    live = engine.base.encode_prompts([CLASS_PROMPT])["encoder_hidden_states"]
    torch.testing.assert_close(asked[2:], live.expand(2, -1, -1), rtol=1e-5, atol=1e-5)
    plain = load_base("toybox")
    untouched = plain.encode_prompts([CLASS_PROMPT])["encoder_hidden_states"]
    assert (float((live - untouched).abs().max()) > 1e-2) is text_encoder
    assert batch.prior_target is not None
    expected = plain_prediction(plain, batch, slice(2, 4))
    torch.testing.assert_close(batch.prior_target[2:], expected, rtol=1e-4, atol=1e-5)


def test_sizes_that_a_photo_is_told_of_are_told_again(subject_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SDXL's framing is not the prompt's: it stays that of the photo."""
    engine = make_engine(subject_photos, batch_size=2, prediction=True)
    photos = engine.batches.batch(0, 0)
    told = photos.conditioning | {"time_ids": torch.tensor([[1.0], [2.0]])}
    monkeypatch.setattr(BaseModel, "predict", lambda self, noisy, timesteps, conditioning: noisy)
    batch = asked_again(engine, replace(photos, conditioning=told))
    assert batch.conditioning["time_ids"].flatten().tolist() == [1, 2, 1, 2]


@torch.no_grad()
def test_masks_are_for_the_photos(subject_photos: Path) -> None:
    engine = make_engine(subject_photos, prediction=True)
    photos = engine.batches.batch(0, 0)
    batch = asked_again(engine, replace(photos, loss_weights=torch.zeros(1, 1, 8, 8)))
    assert batch.loss_weights is not None
    assert batch.loss_weights[:1].max() == 0 and batch.loss_weights[1:].min() == 1


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_before_the_first_step_the_prior_term_is_nothing(subject_photos: Path, kind: str) -> None:
    """The adapted model is the base to the last bit; what is left are sums over another number of rows."""
    engine = make_engine(
        subject_photos, batch_size=2, prediction=True, adapter=AdapterConfig(rank=2, kind=kind, train_text_encoder=True)
    )
    batch = asked_again(engine, engine.batches.batch(0, 0))
    noisy = make_scheduler(engine.base).add_noise(batch.latents, batch.noise, batch.timesteps)
    arguments = (noisy, batch.timesteps, batch.conditioning)
    with torch.no_grad():
        adapted = engine.base.predict(*arguments)
        with engine.adapter.switched_off():
            assert torch.equal(engine.base.predict(*arguments), adapted)
    losses = engine.stepper.step()
    assert losses.prior < 1e-11 and losses.instance > 0.1
    assert losses.total == pytest.approx(losses.instance, rel=1e-6)
    assert engine.stepper.step().prior > 1e-8


def test_asking_the_base_leaves_the_gradients_as_they_are(subject_photos: Path) -> None:
    """The step's gradients are those of a target that was worked out beforehand by a base of its own."""
    how = AdapterConfig(rank=2, train_text_encoder=True)
    ours = make_engine(subject_photos, batch_size=2, prediction=True, adapter=how)
    move(ours)
    ours.stepper.step()
    theirs = make_engine(subject_photos, batch_size=2, adapter=how)
    move(theirs)
    photos, plain = theirs.batches.batch(0, 0), load_base("toybox")
    with torch.no_grad():
        answer = plain_prediction(plain, photos, slice(0, 2))
    live = theirs.base.encode_prompts([CLASS_PROMPT])["encoder_hidden_states"].expand(2, -1, -1)
    batch = Batch(
        torch.cat([photos.latents] * 2),
        torch.cat([photos.noise] * 2),
        torch.cat([photos.timesteps] * 2),
        torch.tensor([False, False, True, True]),
        {"encoder_hidden_states": torch.cat([photos.conditioning["encoder_hidden_states"], live])},
        prior_target=torch.cat([answer, answer]),
    )
    theirs.adapter.zero_grad()
    denoising_loss(theirs.base.predict, make_scheduler(theirs.base), batch, 0.5)[0].backward()
    assert all(float(gradient.norm()) > 0 for gradient in theirs.gradients().values())
    assert relative_difference(ours.gradients(), theirs.gradients()) < 1e-5


def test_asking_the_base_prepares_nothing_again(subject_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready tensors that a recorded forward of the text encoder reads must not be written in between."""
    engine = make_engine(
        subject_photos, accumulation=2, prediction=True, adapter=AdapterConfig(rank=2, train_text_encoder=True)
    )
    prepared: list[float] = []
    prepare = type(engine.adapter.variant).prepare
    monkeypatch.setattr(
        type(engine.adapter.variant),
        "prepare",
        lambda self, group, strength: prepared.append(strength) or prepare(self, group, strength),
    )
    for _ in range(2):
        engine.stepper.step()
    assert prepared == [1.0] * 2 * len(engine.adapter.groups)
    assert engine.adapter.strength == 1


def test_prior_samples_count_by_their_timestep_too(subject_photos: Path) -> None:
    engines = [
        make_engine(subject_photos, prediction=True, loss=how) for how in (LossConfig(), LossConfig(snr_gamma=0.01))
    ]
    for engine in engines:
        move(engine)
    timestep = engines[0].batches.batch(0, 0).timesteps
    kept = make_scheduler(engines[0].base).alphas_cumprod[timestep]
    weight = float((0.01 / (kept / (1 - kept))).clamp(max=1))
    if engines[0].base.prediction_type == "v_prediction":
        weight *= float(kept)  # min(snr, gamma) / (snr + 1) = min(1, gamma / snr) alpha^2
    assert weight < 0.5
    plain, weighted = (engine.stepper.step() for engine in engines)
    assert weighted.prior == pytest.approx(weight * plain.prior, rel=1e-4)
    assert weighted.instance == pytest.approx(weight * plain.instance, rel=1e-4)


# ------------------------------------------------------------------------------------------------- whole runs
def test_a_run_needs_no_pictures_and_logs_the_prior_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_diffusion.training.prior.draw", None)
    heard = Heard()
    run_it(small_config(tmp_path / "run", 2, prior=PREDICTION), heard)
    assert heard.of(ClassImages) == []
    assert "asked for 'a photo of a teapot'" in heard.of(RunStarted)[0].facts["batch"]
    rows = metrics(tmp_path / "run")
    assert rows[0]["prior_loss"] < 1e-11 < rows[1]["prior_loss"]
    assert "the base's own predictions, prior weight 1" in (tmp_path / "run" / "README.md").read_text()


def test_the_weight_holds_the_class_to_the_base(tmp_path: Path) -> None:
    """A heavy prior term keeps the prediction for the class nearer to the base's, and the adapter smaller."""

    def last_prior_loss(name: str, weight: float) -> float:
        prior = {**PREDICTION, "prior_loss_weight": weight}
        run_it(small_config(tmp_path / name, 6, prior=prior, loss={"timestep_sampling": "stratified"}))
        return float(metrics(tmp_path / name)[-1]["prior_loss"])

    free, held = last_prior_loss("free", 0.0), last_prior_loss("held", 1000.0)
    assert held < 0.7 * free
    assert relative_difference(weight_changes(tmp_path / "held"), weight_changes(tmp_path / "free")) > 0.1
