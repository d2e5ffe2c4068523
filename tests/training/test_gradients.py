"""One step's gradient depends on which samples are in it, not on how they were handed out."""

from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_engine import Engine, make_engine
from training_runs import relative_difference

from dora_diffusion.config import AdapterConfig, LossConfig, OptimConfig
from dora_diffusion.training.batches import Batches
from dora_diffusion.training.loss import Batch
from dora_diffusion.training.stepper import Losses

# float32 sums in another order: the terms agree to 1e-7, and a sum of many that cancel loses a digit or two of that.
SUMMATION_ORDER = 1e-5


def moved_engine(folder: Path, **how: object) -> Engine:
    """An engine whose B is not 0, so that A has a gradient too."""
    engine = make_engine(folder, **how)  # type: ignore[arg-type]
    with torch.no_grad():
        for buffer in engine.adapter.buffers:
            if buffer.role == "B":
                buffer.parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    return engine


def first_gradients(folder: Path, **how: object) -> dict[str, Tensor]:
    """The gradients of the first step."""
    engine = moved_engine(folder, **how)
    engine.stepper.step()
    return engine.gradients()


@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
def test_two_accumulated_batches_of_one_are_a_batch_of_two(subject_photos: Path, prior: bool) -> None:
    together = first_gradients(subject_photos, batch_size=2, prior=prior)
    in_turn = first_gradients(subject_photos, accumulation=2, prior=prior)
    assert all(float(gradient.norm()) > 0 for gradient in together.values())
    assert relative_difference(in_turn, together) < SUMMATION_ORDER


@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
def test_the_mean_of_two_processes_is_a_batch_of_two(subject_photos: Path, prior: bool) -> None:
    together = first_gradients(subject_photos, batch_size=2, prior=prior)
    halves = [first_gradients(subject_photos, process=k, processes=2, prior=prior) for k in range(2)]
    assert relative_difference(halves[0], halves[1]) > 0.1  # they did see different photos
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in together}
    assert relative_difference(mean, together) < SUMMATION_ORDER


def test_accumulation_counts_every_photo_of_a_trained_text_encoder(subject_photos: Path) -> None:
    adapter = AdapterConfig(rank=2, train_text_encoder=True)
    together = first_gradients(subject_photos, batch_size=2, adapter=adapter)
    in_turn = first_gradients(subject_photos, accumulation=2, adapter=adapter)
    assert {name.split(".")[0] for name in together} == {"unet", "text_encoder"}
    assert all(float(gradient.norm()) > 0 for gradient in together.values())
    assert relative_difference(in_turn, together) < SUMMATION_ORDER


@pytest.mark.parametrize("limit", [1e-4, 0.0])
def test_gradients_are_clipped_to_max_grad_norm(subject_photos: Path, limit: float) -> None:
    free = first_gradients(subject_photos)
    size = float(torch.cat(list(free.values())).norm())
    assert size > 1e-3
    clipped = first_gradients(subject_photos, optim=OptimConfig(max_grad_norm=limit))
    factor = limit / size if limit else 1.0
    assert relative_difference({name: g / factor for name, g in clipped.items()}, free) < 1e-4


WEIGHTED = LossConfig(snr_gamma=1, loss_type="huber", noise_offset=0.1, timestep_sampling="stratified")


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every photo gets a mask of its own; class images none."""
    batch_of = Batches.batch

    def masked(self: Batches, step: int, micro_step: int) -> Batch:
        batch = batch_of(self, step, micro_step)
        # Larger for some than for others, and a function of the sample alone.
        mask = (batch.noise[:, :1] > batch.timesteps[:, None, None, None] / 500 - 1).float()
        return replace(batch, loss_weights=torch.where(batch.is_prior[:, None, None, None], 1.0, mask))

    monkeypatch.setattr(Batches, "batch", masked)


@pytest.mark.usefixtures("masks")
@pytest.mark.parametrize("kind", ["prior", "prediction"])
def test_weights_and_masks_count_the_same_however_a_global_batch_is_split(subject_photos: Path, kind: str) -> None:
    def first_step(**shape: int) -> tuple[dict[str, Tensor], Losses]:
        engine = moved_engine(subject_photos, loss=WEIGHTED, **{kind: True}, **shape)
        losses = engine.stepper.step()
        return engine.gradients(), losses

    together, expected = first_step(batch_size=4)
    assert all(float(gradient.norm()) > 0 for gradient in together.values())
    for shape in ({"batch_size": 2, "accumulation": 2}, {"accumulation": 4}):
        ours, losses = first_step(**shape)
        assert relative_difference(ours, together) < SUMMATION_ORDER
        assert astuple(losses) == pytest.approx(astuple(expected), rel=1e-5)
    halves = [first_step(batch_size=2, process=k, processes=2) for k in range(2)]
    mean = {name: (halves[0][0][name] + halves[1][0][name]) / 2 for name in together}
    assert relative_difference(mean, together) < SUMMATION_ORDER
    assert (halves[0][1].prior + halves[1][1].prior) / 2 == pytest.approx(expected.prior, rel=1e-5)
