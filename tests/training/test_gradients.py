"""One step's gradient depends on which samples are in it, not on how they were handed out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_engine import make_engine
from training_runs import relative_difference

from dora_diffusion.config import AdapterConfig, OptimConfig

# float32 sums in another order: the terms agree to 1e-7, and a sum of many that cancel loses a digit or two of that.
SUMMATION_ORDER = 1e-5


def first_gradients(folder: Path, **how: object) -> dict[str, Tensor]:
    """The gradients of the first step; A's is 0 there, because B is."""
    engine = make_engine(folder, **how)  # type: ignore[arg-type]
    with torch.no_grad():
        for buffer in engine.adapter.buffers:
            if buffer.role == "B":
                buffer.parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
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
