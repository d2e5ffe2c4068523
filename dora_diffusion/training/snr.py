"""What a sample counts by its timestep: weights that are functions of the signal-to-noise ratio.

A squared error of the noise, of the velocity and of the picture are the same thing on other scales: with
``alpha^2 + sigma^2 = 1`` and ``snr = alpha^2 / sigma^2``, ``|x0 error|^2 = |noise error|^2 / snr`` and
``|noise error|^2 = alpha^2 |velocity error|^2`` with ``alpha^2 = snr / (snr + 1)``. A weighting is one curve over the
ratio, written for either prediction.
"""

from typing import Any

import torch
from torch import Tensor

from dora_diffusion.config import LossConfig

# debiased: beyond these the weight of noise errors would leave [1/32, 32], and at no signal at all be infinite.
_LEAST, _MOST = 1e-3, 1e3


def signal_to_noise(scheduler: Any, timesteps: Tensor) -> Tensor:
    """``alpha_t^2 / sigma_t^2`` (b,), float32; 0 at the end of a schedule with zero terminal SNR."""
    kept = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    return kept / (1 - kept)


def min_snr_weights(snr: Tensor, gamma: float, velocity: bool) -> Tensor:
    """``min(snr, gamma)`` of the picture's error (arXiv:2303.09556, section 3.4): (b,) to (b,).

    That is ``min(snr, gamma) / snr`` of the noise's error and ``min(snr, gamma) / (snr + 1)`` of the velocity's.
    """
    if velocity:
        return snr.clamp_max(gamma) / (snr + 1)
    return (gamma / snr).clamp_max(1)  # so written it is 1 where there is no signal, not 0 / 0


def debiased_weights(snr: Tensor, velocity: bool) -> Tensor:
    """``1 / sqrt(snr)`` of the noise's error (arXiv:2310.08442): (b,) to (b,).

    That is ``sqrt(snr) / (snr + 1)`` of the velocity's. The ratio is held within [0.001, 1000].
    """
    snr = snr.clamp(_LEAST, _MOST)
    return snr.sqrt() / (snr + 1) if velocity else snr.rsqrt()


def timestep_weights(how: LossConfig, scheduler: Any, timesteps: Tensor) -> Tensor | None:
    """(b,) float32 by the settings and by what the model predicts; None where all timesteps count the same."""
    weighting = how.weighting()
    if weighting == "uniform":
        return None
    snr = signal_to_noise(scheduler, timesteps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    return min_snr_weights(snr, how.gamma(), velocity) if weighting == "min_snr" else debiased_weights(snr, velocity)


def huber_deltas(how: LossConfig, scheduler: Any, timesteps: Tensor) -> Tensor | None:
    """(b,) float32: where the pseudo-Huber error turns from squares to amounts (arXiv:2403.16728); None for ``l2``.

    It falls from about 1 at little noise to ``c = huber_c`` at much: ``(1 - c) / (1 + sigma / alpha)^2 + c`` ("snr")
    or ``c^(t / T)`` ("exponential"); "constant" is ``c`` throughout.
    """
    if how.loss_type == "l2":
        return None
    c = how.huber_c
    if how.huber_schedule == "exponential":
        return c ** (timesteps.float() / scheduler.config.num_train_timesteps)
    if how.huber_schedule == "snr":
        return (1 - c) / (1 + signal_to_noise(scheduler, timesteps).rsqrt()).square() + c
    return torch.full_like(timesteps, c, dtype=torch.float32)
