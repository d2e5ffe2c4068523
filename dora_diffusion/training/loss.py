"""The DreamBooth loss as pure functions of tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.config import LossConfig
from dora_diffusion.errors import ModelError
from dora_diffusion.training.snr import huber_deltas, timestep_weights

Predict = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]  # noisy latents, timesteps, conditioning

PLAIN = LossConfig()  # the mean squared error, all timesteps alike: DreamBooth's own


@dataclass(frozen=True)
class Batch:
    """One process's share of one micro-step.

    ``latents``, ``noise`` (b, c, h/8, w/8) float32, latents scaled; ``timesteps`` (b,) int64; ``is_prior`` (b,) bool:
    which samples count in the prior term; ``conditioning``: what the UNet takes besides, its first axis b.
    ``loss_weights`` (b, 1, h/8, w/8) float32, at least 0: what each place counts within its sample, 1 everywhere where
    it is None. ``prior_target`` (b, c, h/8, w/8): what the prior samples are to predict, in place of their noise or
    velocity; the other rows are not read.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    is_prior: Tensor
    conditioning: dict[str, Tensor]
    loss_weights: Tensor | None = None
    prior_target: Tensor | None = None


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


def element_errors(model_pred: Tensor, target: Tensor, how: LossConfig = PLAIN, deltas: Tensor | None = None) -> Tensor:
    """The error of every number, float32, shaped as ``model_pred`` (b, c, h, w).

    With ``e`` the difference and ``d`` the sample's delta: ``l2`` is ``e^2``; ``huber`` is
    ``2 d (sqrt(e^2 + d^2) - d)``, which is ``e^2`` for small e and ``2 d |e|`` for large; ``smooth_l1`` is that over d,
    ``2 |e|`` for large e (pseudo-Huber, arXiv:2403.16728; the factors are those of diffusers' and kohya's scripts).

    Args:
        deltas: (b,); not read by ``l2``.
    """
    squares = F.mse_loss(model_pred.float(), target.float(), reduction="none")
    if how.loss_type == "l2" or deltas is None:
        return squares
    d = deltas[:, None, None, None]
    # e^2 / (sqrt(e^2 + d^2) + d) is sqrt(e^2 + d^2) - d without the difference of two almost equal numbers.
    smooth = 2 * squares / ((squares + d.square()).sqrt() + d)
    return d * smooth if how.loss_type == "huber" else smooth


def sample_errors(errors: Tensor, loss_weights: Tensor | None = None) -> Tensor:
    """Each sample's mean error (b,).

    With ``loss_weights`` (b, 1, h, w) it is the weighted mean, ``sum(w * error) / sum(w)`` over channels and places: a
    small mask does not make a small loss. A sample whose weights are all 0 has the error 0.
    """
    if loss_weights is None:
        return errors.mean((1, 2, 3))
    weights = loss_weights.expand_as(errors)
    return (weights * errors).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(torch.finfo(torch.float32).tiny)


def dreambooth_loss(per_sample: Tensor, is_prior: Tensor, prior_loss_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """``mean over instances + prior_loss_weight * mean over prior samples`` (arXiv:2208.12242, eq. 2).

    Args:
        per_sample: (b,) errors, already multiplied by what each sample's own timestep counts.
        is_prior: (b,) bool.

    Returns:
        (loss, instance term, prior term), float32 scalars; a term without samples is 0. The terms hold the timestep
        weights and not ``prior_loss_weight``.
    """
    instance, prior = _masked_mean(per_sample, ~is_prior), _masked_mean(per_sample, is_prior)
    return instance + prior_loss_weight * prior, instance, prior


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1)


def denoising_loss(
    predict: Predict, scheduler: Any, batch: Batch, prior_loss_weight: float, how: LossConfig = PLAIN
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise the latents, predict, compare: everything around the prediction in float32.

    Returns:
        What ``dreambooth_loss`` does.
    """
    noisy_latents = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    model_pred = predict(noisy_latents, batch.timesteps, batch.conditioning)
    target = training_target(scheduler, batch.latents, batch.noise, batch.timesteps)
    if batch.prior_target is not None:
        target = torch.where(batch.is_prior[:, None, None, None], batch.prior_target, target)
    errors = element_errors(model_pred, target, how, huber_deltas(how, scheduler, batch.timesteps))
    per_sample = sample_errors(errors, batch.loss_weights)
    weights = timestep_weights(how, scheduler, batch.timesteps)
    return dreambooth_loss(per_sample if weights is None else per_sample * weights, batch.is_prior, prior_loss_weight)
