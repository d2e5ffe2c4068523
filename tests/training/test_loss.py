"""The loss against its formulas: DreamBooth's two terms, and the targets written from the noise schedule's betas."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn

from dora_diffusion.config import LossConfig
from dora_diffusion.errors import ModelError
from dora_diffusion.models import BaseModel
from dora_diffusion.models.sd1 import SD1
from dora_diffusion.training.loss import (
    Batch,
    denoising_loss,
    dreambooth_loss,
    element_errors,
    sample_errors,
    training_target,
)

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def chunked_loss(model_pred: Tensor, target: Tensor, prior_loss_weight: float) -> Tensor:
    """The form of diffusers' DreamBooth scripts: photos in the first half of the batch, class images in the second."""
    model_pred, model_pred_prior = torch.chunk(model_pred, 2, dim=0)
    target, target_prior = torch.chunk(target, 2, dim=0)
    instance = F.mse_loss(model_pred.float(), target.float(), reduction="mean")
    prior = F.mse_loss(model_pred_prior.float(), target_prior.float(), reduction="mean")
    return instance + prior_loss_weight * prior


def squared_loss(model_pred: Tensor, target: Tensor, is_prior: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    return dreambooth_loss(sample_errors(element_errors(model_pred, target)), is_prior, weight)


def alpha_and_sigma(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha_t, sigma_t`` of the scaled-linear schedule, in float64, from its definition."""
    betas = torch.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2  # type: ignore[operator]
    kept = torch.cumprod(1 - betas, 0)[timesteps][:, None, None, None]
    return kept.sqrt(), (1 - kept).sqrt()


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_loss_and_its_gradient_are_those_of_the_chunked_form(weight: float) -> None:
    target = normal(6, 4, 8, 8, seed=1)
    ours, theirs = (normal(6, 4, 8, 8).requires_grad_() for _ in range(2))
    is_prior = torch.tensor([False] * 3 + [True] * 3)
    loss, instance, prior = squared_loss(ours, target, is_prior, weight)
    expected = chunked_loss(theirs, target, weight)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(loss, instance + weight * prior)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_without_class_images_it_is_the_mean_squared_error() -> None:
    model_pred, target = normal(3, 4, 8, 8), normal(3, 4, 8, 8, seed=1)
    loss, instance, prior = squared_loss(model_pred, target, torch.tensor([False] * 3), 1.0)
    torch.testing.assert_close(loss, F.mse_loss(model_pred, target))
    assert (float(instance), float(prior)) == (float(loss), 0.0)


def test_each_sample_counts_in_the_term_it_belongs_to_wherever_it_stands() -> None:
    model_pred = torch.stack([torch.full((4, 2, 2), value) for value in (1.0, 2.0, 3.0, 4.0)])
    is_prior = torch.tensor([True, False, True, False])
    loss, instance, prior = squared_loss(model_pred, torch.zeros(4, 4, 2, 2), is_prior, 0.5)
    assert (float(instance), float(prior)) == ((4 + 16) / 2, (1 + 9) / 2)
    assert float(loss) == 10 + 0.5 * 5


def test_halves_are_compared_in_float32() -> None:
    model_pred = normal(2, 4, 32, 32).bfloat16()
    loss, _, _ = squared_loss(model_pred, torch.zeros(2, 4, 32, 32).bfloat16(), torch.tensor([False, False]), 1.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, model_pred.float().square().mean())


@pytest.mark.parametrize("timestep", [0, 1, 500, 999])
def test_targets_are_the_noise_and_the_velocity(timestep: int) -> None:
    latents, noise, timesteps = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1), torch.tensor([timestep, timestep])
    epsilon = training_target(DDPMScheduler(**BETAS, prediction_type="epsilon"), latents, noise, timesteps)
    assert torch.equal(epsilon, noise)
    velocity = training_target(DDPMScheduler(**BETAS, prediction_type="v_prediction"), latents, noise, timesteps)
    alpha, sigma = alpha_and_sigma(timesteps)
    torch.testing.assert_close(velocity.double(), alpha * noise - sigma * latents, rtol=1e-4, atol=1e-5)


def test_a_model_that_predicts_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="'sample'.*epsilon and v_prediction"):
        training_target(
            DDPMScheduler(prediction_type="sample"), normal(1, 4, 8, 8), normal(1, 4, 8, 8), torch.tensor([1])
        )


class Listener(nn.Module):
    """A UNet that notes what it is given and predicts its input."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.given: Any = None

    def forward(self, sample: Tensor, timesteps: Tensor, *, return_dict: bool, **conditioning: Tensor) -> tuple[Tensor]:
        self.given = SimpleNamespace(sample=sample, timesteps=timesteps, **conditioning)
        return (sample,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_unet_sees_noisy_latents_in_its_own_precision(prediction_type: str, dtype: torch.dtype) -> None:
    timesteps = torch.tensor([10, 700])
    batch = Batch(
        normal(2, 4, 8, 8),
        normal(2, 4, 8, 8, seed=1),
        timesteps,
        torch.tensor([False, True]),
        {"encoder_hidden_states": normal(2, 3, 5)},
    )
    unet = Listener(dtype)
    base = BaseModel("listener", SD1, SimpleNamespace(unet=unet))
    loss, instance, prior = denoising_loss(
        base.predict, DDPMScheduler(**BETAS, prediction_type=prediction_type), batch, 0.5
    )
    alpha, sigma = alpha_and_sigma(timesteps)
    noisy = alpha * batch.latents + sigma * batch.noise
    coarse = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(unet.given.sample.double(), noisy, rtol=coarse, atol=coarse)
    assert unet.given.sample.dtype == unet.given.encoder_hidden_states.dtype == dtype
    assert torch.equal(unet.given.timesteps, timesteps)
    velocity = alpha * batch.noise - sigma * batch.latents
    target = batch.noise.double() if prediction_type == "epsilon" else velocity
    terms = (unet.given.sample.double() - target).square().mean((1, 2, 3))
    torch.testing.assert_close(torch.stack([instance, prior]).double(), terms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, instance + 0.5 * prior)


# ------------------------------------------------------------------------------------------------- errors
def test_huber_and_smooth_l1_are_their_formulas_and_their_limits() -> None:
    delta = torch.tensor([0.1, 0.5])
    e = torch.tensor([[1e-4, 0.3], [1e-4, 3000.0]])[:, :, None, None]
    huber, smooth = (
        element_errors(e, torch.zeros_like(e), LossConfig(loss_type=name), delta) for name in ("huber", "smooth_l1")
    )
    d, x = delta.double()[:, None, None, None], e.double()
    expected = 2 * d * ((x.square() + d.square()).sqrt() - d)
    torch.testing.assert_close(huber.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(smooth.double(), expected / d, rtol=1e-5, atol=0)
    assert huber[0, 0].item() == pytest.approx(1e-8, rel=1e-4)  # squares near 0
    assert huber[1, 1].item() == pytest.approx(2 * 0.5 * 3000, rel=1e-3)  # amounts far from it
    assert smooth[1, 1].item() == pytest.approx(2 * 3000, rel=1e-3)


@pytest.mark.parametrize("loss_type", ["huber", "smooth_l1"])
def test_their_gradient_is_the_closed_form_and_finite_at_no_error(loss_type: Any) -> None:
    e = torch.tensor([0.0, 1e-6, 0.2, -40.0])[None, :, None, None].requires_grad_()
    element_errors(e, torch.zeros(1, 4, 1, 1), LossConfig(loss_type=loss_type), torch.tensor([0.1])).sum().backward()
    x = e.detach().double()
    slope = 2 * x / (x.square() + 0.01).sqrt()
    expected = 0.1 * slope if loss_type == "huber" else slope
    assert e.grad is not None
    torch.testing.assert_close(e.grad.double(), expected, rtol=1e-4, atol=0)


# ------------------------------------------------------------------------------------------------- masks
def test_a_mask_weighs_places_by_hand_computed_numbers() -> None:
    errors = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]] * 4)
    masks = torch.tensor(
        [
            [[[1.0, 0.0], [0.0, 0.0]]],  # (1 + 10) / 2
            [[[1.0, 1.0], [1.0, 1.0]]],  # (10 + 100) / 8
            [[[0.0, 0.5], [0.0, 0.25]]],  # (0.5 (2 + 20) + 0.25 (4 + 40)) / (2 * 0.75)
            [[[0.0, 0.0], [0.0, 0.0]]],
        ]
    )
    assert sample_errors(errors, masks).tolist() == pytest.approx([5.5, 13.75, 22 / 1.5, 0])


def test_a_small_mask_does_not_make_a_small_loss() -> None:
    errors = torch.ones(2, 4, 64, 64)
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, 0, 0, 0] = masks[1, 0, :32] = 1
    assert sample_errors(errors, masks).tolist() == [1, 1]
    torch.testing.assert_close(sample_errors(errors, torch.full((2, 1, 64, 64), 0.3)), sample_errors(errors))


def test_nothing_is_learnt_outside_the_mask_nor_from_an_empty_one() -> None:
    model_pred = normal(2, 4, 8, 8).requires_grad_()
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, 0, 2:4] = 1
    sample_errors(element_errors(model_pred, normal(2, 4, 8, 8, seed=1)), masks).sum().backward()
    assert model_pred.grad is not None
    touched = (model_pred.grad != 0).float().mean((1, 3))
    assert touched.tolist() == [[0, 0, 1, 1, 0, 0, 0, 0], [0] * 8]


# ------------------------------------------------------------------------------------------------- all together
def echo(noisy_latents: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
    """A model that predicts half its input."""
    return noisy_latents / 2


def four_samples(mask: bool = False) -> Batch:
    """Two photos and two class images, interleaved, each at a timestep of its own."""
    return Batch(
        normal(4, 4, 8, 8),
        normal(4, 4, 8, 8, seed=1),
        torch.tensor([20, 60, 640, 980]),
        torch.tensor([False, True, False, True]),
        {},
        (normal(4, 1, 8, 8, seed=2) > 0).float() if mask else None,
    )


def one_of(batch: Batch, k: int) -> Batch:
    """Sample ``k`` alone, as a photo."""
    mask = None if batch.loss_weights is None else batch.loss_weights[k : k + 1]
    rows = (batch.latents[k : k + 1], batch.noise[k : k + 1], batch.timesteps[k : k + 1])
    return Batch(*rows, torch.tensor([False]), {}, mask)


HOWS = {
    "plain": LossConfig(),
    "min-SNR": LossConfig(snr_gamma=5),
    "debiased": LossConfig(loss_weighting="debiased"),
    "huber": LossConfig(loss_type="huber"),
    "smooth l1 and min-SNR": LossConfig(loss_type="smooth_l1", huber_schedule="exponential", snr_gamma=1),
}


@pytest.mark.parametrize("mask", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_every_sample_counts_by_its_own_timestep_in_its_own_term(
    how: LossConfig, prediction_type: str, mask: bool
) -> None:
    """``mean over instances + prior_loss_weight * mean over class`` of what each sample comes to alone."""
    scheduler, batch = DDPMScheduler(**BETAS, prediction_type=prediction_type), four_samples(mask)
    loss, instance, prior = denoising_loss(echo, scheduler, batch, 0.3, how)
    alone = [float(denoising_loss(echo, scheduler, one_of(batch, k), 0.3, how)[0]) for k in range(4)]
    assert float(instance) == pytest.approx((alone[0] + alone[2]) / 2, rel=1e-5)
    assert float(prior) == pytest.approx((alone[1] + alone[3]) / 2, rel=1e-5)
    assert float(loss) == pytest.approx(float(instance) + 0.3 * float(prior), rel=1e-5)


def test_min_snr_with_class_images_is_the_sum_written_out() -> None:
    """The published scripts weigh the photos by the class images' timesteps too (diffusers issue 5791)."""
    batch = four_samples()
    loss, instance, prior = denoising_loss(echo, DDPMScheduler(**BETAS), batch, 0.3, LossConfig(snr_gamma=5))
    alpha, sigma = alpha_and_sigma(batch.timesteps)
    snr = (alpha / sigma).square().flatten()
    weights = torch.minimum(snr, torch.tensor(5.0)) / snr
    assert len(set(weights.tolist())) == 3  # the timesteps do tell them apart
    noisy = alpha * batch.latents + sigma * batch.noise
    counted = weights * (noisy / 2 - batch.noise).square().mean((1, 2, 3))
    assert float(instance) == pytest.approx(float(counted[[0, 2]].mean()), rel=1e-5)
    assert float(prior) == pytest.approx(float(counted[[1, 3]].mean()), rel=1e-5)
    assert float(loss) == pytest.approx(float(counted[[0, 2]].mean() + 0.3 * counted[[1, 3]].mean()), rel=1e-5)


def test_a_target_of_their_own_is_for_prior_samples_alone() -> None:
    batch = four_samples()
    own = torch.full_like(batch.latents, 7.0)
    _, instance, prior = denoising_loss(echo, DDPMScheduler(**BETAS), replace(batch, prior_target=own), 1.0)
    assert float(instance) == float(denoising_loss(echo, DDPMScheduler(**BETAS), batch, 1.0)[1])
    alpha, sigma = alpha_and_sigma(batch.timesteps)
    noisy = alpha * batch.latents + sigma * batch.noise
    assert float(prior) == pytest.approx(float((noisy / 2 - 7)[[1, 3]].square().mean()), rel=1e-5)
