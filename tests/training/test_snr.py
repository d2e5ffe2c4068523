"""Timestep weights and Huber's deltas against their definitions, in float64."""

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from dora_diffusion.config import LossConfig
from dora_diffusion.training.snr import (
    debiased_weights,
    huber_deltas,
    min_snr_weights,
    signal_to_noise,
    timestep_weights,
)

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TIMESTEPS = torch.tensor([0, 1, 50, 300, 500, 700, 900, 999])


def schedule(prediction_type: str = "epsilon", zero_terminal: bool = False) -> DDPMScheduler:
    return DDPMScheduler(**BETAS, prediction_type=prediction_type, rescale_betas_zero_snr=zero_terminal)


def alpha_and_sigma(scheduler: DDPMScheduler, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """(b, 1), float64."""
    kept = torch.cumprod(1 - scheduler.betas.double(), 0)[timesteps][:, None]
    return kept.sqrt(), (1 - kept).sqrt()


def squared_errors(scheduler: DDPMScheduler) -> dict[str, Tensor]:
    """Of one guess, (b,) float64 at TIMESTEPS: the squared error of the noise, of the velocity and of the picture."""
    draw = torch.Generator().manual_seed(0)
    x0, noise, guess = (torch.randn(len(TIMESTEPS), 64, generator=draw, dtype=torch.float64) for _ in range(3))
    alpha, sigma = alpha_and_sigma(scheduler, TIMESTEPS)
    noisy = alpha * x0 + sigma * noise
    # The same guess three ways (arXiv:2202.00512, appendix D).
    noise_guess, velocity_guess, x0_guess = sigma * noisy + alpha * guess, guess, alpha * noisy - sigma * guess
    velocity = alpha * noise - sigma * x0
    pairs = {"epsilon": (noise_guess, noise), "v_prediction": (velocity_guess, velocity), "picture": (x0_guess, x0)}
    return {name: (ours - theirs).square().mean(1) for name, (ours, theirs) in pairs.items()}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_counts_the_error_of_the_picture(prediction_type: str, gamma: float) -> None:
    """arXiv:2303.09556: ``min(snr, gamma)`` times the picture's error, whatever the model predicts."""
    scheduler = schedule(prediction_type)
    errors = squared_errors(scheduler)
    alpha, sigma = alpha_and_sigma(scheduler, TIMESTEPS)
    snr = (alpha / sigma).square().flatten()
    assert snr.min() < gamma < snr.max()
    weights = timestep_weights(LossConfig(snr_gamma=gamma), scheduler, TIMESTEPS)
    assert weights is not None and weights.dtype == torch.float32
    expected = snr.clamp(max=gamma) * errors["picture"]
    torch.testing.assert_close(weights.double() * errors[prediction_type], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_debiased_counts_the_same_error_in_either_prediction(prediction_type: str) -> None:
    """arXiv:2310.08442: ``1 / sqrt(snr)`` times the noise's error."""
    scheduler = schedule(prediction_type)
    errors = squared_errors(scheduler)
    alpha, sigma = alpha_and_sigma(scheduler, TIMESTEPS)
    weights = timestep_weights(LossConfig(loss_weighting="debiased"), scheduler, TIMESTEPS)
    assert weights is not None
    inner = alpha.flatten().square() / sigma.flatten().square() < 1000  # all but timestep 0
    assert inner.tolist() == [False] + [True] * 7
    expected = (sigma / alpha).flatten() * errors["epsilon"]
    ours = weights.double() * errors[prediction_type]
    torch.testing.assert_close(ours[inner], expected[inner], rtol=1e-4, atol=0)


def test_the_ratio_and_min_snr_are_those_of_diffusers() -> None:
    scheduler = schedule()
    theirs = compute_snr(scheduler, TIMESTEPS)
    torch.testing.assert_close(signal_to_noise(scheduler, TIMESTEPS), theirs, rtol=1e-5, atol=0)
    gamma = torch.full_like(theirs, 5.0)
    expected = torch.stack([theirs, gamma]).min(0).values / theirs
    torch.testing.assert_close(min_snr_weights(theirs, 5.0, velocity=False), expected, rtol=1e-5, atol=0)


def test_without_signal_or_noise_every_weight_is_finite() -> None:
    snr = torch.tensor([0.0, float("inf")])
    assert min_snr_weights(snr, 5.0, velocity=False).tolist() == [1, 0]
    assert min_snr_weights(snr, 5.0, velocity=True).tolist() == [0, 0]
    expected = torch.tensor([1000**0.5, 1000**-0.5])
    torch.testing.assert_close(debiased_weights(snr, velocity=False), expected)
    torch.testing.assert_close(debiased_weights(snr, velocity=True), torch.full((2,), 1000**0.5 / 1001))


def test_a_schedule_that_ends_in_pure_noise_is_weighted() -> None:
    scheduler = schedule("v_prediction", zero_terminal=True)
    assert float(signal_to_noise(scheduler, torch.tensor([999]))) == 0
    for how in (LossConfig(snr_gamma=5), LossConfig(loss_weighting="debiased")):
        weights = timestep_weights(how, scheduler, torch.arange(1000))
        assert weights is not None and torch.isfinite(weights).all() and weights.min() >= 0
    deltas = huber_deltas(LossConfig(loss_type="huber", huber_c=0.2), scheduler, torch.tensor([999]))
    assert deltas is not None and deltas.tolist() == pytest.approx([0.2])


def test_all_timesteps_alike_have_no_weights_and_squares_no_deltas() -> None:
    assert timestep_weights(LossConfig(), schedule(), TIMESTEPS) is None
    assert huber_deltas(LossConfig(), schedule(), TIMESTEPS) is None


@pytest.mark.parametrize("shape", ["snr", "exponential", "constant"])
def test_deltas_follow_their_schedule(shape: Any) -> None:
    """arXiv:2403.16728: by sigma / alpha, or from 1 at timestep 0 to c at the last in equal ratios."""
    scheduler, c = schedule(), 0.1
    deltas = huber_deltas(LossConfig(loss_type="huber", huber_c=c, huber_schedule=shape), scheduler, TIMESTEPS)
    alpha, sigma = alpha_and_sigma(scheduler, TIMESTEPS)
    closed = {
        "snr": (1 - c) / (1 + (sigma / alpha).flatten()) ** 2 + c,
        "exponential": torch.exp(TIMESTEPS.double() / 1000 * torch.tensor(c).double().log()),
        "constant": torch.full((8,), c).double(),
    }
    assert deltas is not None and deltas.dtype == torch.float32
    torch.testing.assert_close(deltas.double(), closed[shape], rtol=1e-4, atol=0)
    assert (deltas.diff() <= 0).all() and deltas.min() >= c * 0.999 and deltas.max() <= 1
