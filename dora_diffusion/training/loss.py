"""The DreamBooth loss as pure functions of tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.errors import ModelError

Predict = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]  # noisy latents, timesteps, conditioning


@dataclass(frozen=True)
class Batch:
    """One process's share of one micro-step.

    ``latents``, ``noise`` (b, c, h/8, w/8) float32, latents scaled; ``timesteps`` (b,) int64; ``is_prior`` (b,) bool:
    which samples are class images; ``conditioning``: what the UNet takes besides, its first axis b; ``loss_weights``
    (b, 1, h/8, w/8) float32: what each place of the latents counts, None where all count alike.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    is_prior: Tensor
    conditioning: dict[str, Tensor]
    loss_weights: Tensor | None = None


def training_target(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet should predict: the noise, or the velocity (arXiv:2202.00512, appendix D).

    Raises:
        ModelError: the scheduler asks for something else.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ModelError(f"The model predicts {kind!r}; training knows epsilon and v_prediction.")


def dreambooth_loss(
    model_pred: Tensor, target: Tensor, is_prior: Tensor, prior_loss_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``mean over instances + prior_loss_weight * mean over class images`` (arXiv:2208.12242, eq. 2).

    Returns:
        (loss, instance term, prior term), float32 scalars; a term without samples is 0.
    """
    per_sample = F.mse_loss(model_pred.float(), target.float(), reduction="none").mean((1, 2, 3))
    instance, prior = _masked_mean(per_sample, ~is_prior), _masked_mean(per_sample, is_prior)
    return instance + prior_loss_weight * prior, instance, prior


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1)


def denoising_loss(
    predict: Predict, scheduler: Any, batch: Batch, prior_loss_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise the latents, predict, compare: everything around the prediction in float32."""
    noisy_latents = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    model_pred = predict(noisy_latents, batch.timesteps, batch.conditioning)
    target = training_target(scheduler, batch.latents, batch.noise, batch.timesteps)
    return dreambooth_loss(model_pred, target, batch.is_prior, prior_loss_weight)
