"""The loss against its formulas: DreamBooth's two terms, and the targets written from the noise schedule's betas."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn

from dora_diffusion.errors import ModelError
from dora_diffusion.models import BaseModel
from dora_diffusion.models.sd1 import SD1
from dora_diffusion.training.loss import Batch, denoising_loss, dreambooth_loss, training_target

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
    loss, instance, prior = dreambooth_loss(ours, target, is_prior, weight)
    expected = chunked_loss(theirs, target, weight)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(loss, instance + weight * prior)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_without_class_images_it_is_the_mean_squared_error() -> None:
    model_pred, target = normal(3, 4, 8, 8), normal(3, 4, 8, 8, seed=1)
    loss, instance, prior = dreambooth_loss(model_pred, target, torch.tensor([False] * 3), 1.0)
    torch.testing.assert_close(loss, F.mse_loss(model_pred, target))
    assert (float(instance), float(prior)) == (float(loss), 0.0)


def test_each_sample_counts_in_the_term_it_belongs_to_wherever_it_stands() -> None:
    model_pred = torch.stack([torch.full((4, 2, 2), value) for value in (1.0, 2.0, 3.0, 4.0)])
    is_prior = torch.tensor([True, False, True, False])
    loss, instance, prior = dreambooth_loss(model_pred, torch.zeros(4, 4, 2, 2), is_prior, 0.5)
    assert (float(instance), float(prior)) == ((4 + 16) / 2, (1 + 9) / 2)
    assert float(loss) == 10 + 0.5 * 5


def test_halves_are_compared_in_float32() -> None:
    model_pred = normal(2, 4, 32, 32).bfloat16()
    loss, _, _ = dreambooth_loss(model_pred, torch.zeros(2, 4, 32, 32).bfloat16(), torch.tensor([False, False]), 1.0)
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
