"""Noise and timesteps as functions of the seed and of a sample's number in the whole run.

``kind`` names whose samples they are ("instance", "class"): both are numbered alike and draw apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dora_diffusion.config import LossConfig
from dora_diffusion.data.draws import integer, normal, shuffled, uniform
from dora_diffusion.errors import ConfigError


def noise_for(shape: tuple[int, ...], seed: int, kind: str, samples: list[int], offset: float = 0.0) -> Tensor:
    """Noise (b, *shape) of the samples with these numbers, float32.

    Args:
        shape: (c, h, w) of one sample's latents.
        offset: times a normal number for each sample and channel, added all over it; noise that is independent in each
            pixel hardly ever has a mean, so the model learns to keep the picture's (offset noise,
            https://www.crosslabs.org/blog/diffusion-with-offset-noise).
    """
    noise = torch.stack([normal(shape, seed, f"{kind}-noise", n) for n in samples])
    if not offset:
        return noise
    return noise + offset * torch.stack([normal((shape[0], 1, 1), seed, f"{kind}-noise-offset", n) for n in samples])


@dataclass(frozen=True)
class TimestepRange:
    """Timesteps in [low, high), cut into strata.

    Args:
        strata: 1 draws each timestep by itself. The photos of one optimizer step, n of them over all processes and
            micro-steps: the range is cut into n parts of one length, and each of the n takes its timestep from another,
            in an order drawn for the step. A sample's timestep is as likely as before; those of a step are spread.
    """

    low: int
    high: int
    strata: int = 1

    @property
    def size(self) -> int:
        """How many timesteps it holds."""
        return self.high - self.low


def timesteps_for(within: TimestepRange, seed: int, kind: str, samples: list[int]) -> Tensor:
    """(b,) int64: the timesteps of the samples with these numbers."""
    draw = _by_itself if within.strata == 1 else _in_its_stratum
    return torch.tensor([within.low + draw(within, seed, kind, sample) for sample in samples])


def _by_itself(within: TimestepRange, seed: int, kind: str, sample: int) -> int:
    return integer(within.size, seed, f"{kind}-timestep", sample)


def _in_its_stratum(within: TimestepRange, seed: int, kind: str, sample: int) -> int:
    stratum = shuffled(within.strata, sample, seed, f"{kind}-stratum")
    place = (stratum + uniform(seed, f"{kind}-place-in-stratum", sample)) / within.strata
    return min(int(place * within.size), within.size - 1)  # a product just below the size can round up to it


def timestep_range(how: LossConfig, num_train_timesteps: int, global_batch: int) -> TimestepRange:
    """The range that the settings and the model's schedule allow together.

    Args:
        num_train_timesteps: of the model's schedule.
        global_batch: photos of one optimizer step.

    Raises:
        ConfigError: the settings ask for timesteps that the schedule has not.
    """
    high = num_train_timesteps if how.max_timestep is None else how.max_timestep
    if high > num_train_timesteps or how.min_timestep >= high:
        raise ConfigError(
            f"The model has timesteps 0 to {num_train_timesteps - 1}; min_timestep {how.min_timestep} and max_timestep "
            f"{high} (itself not drawn) must lie within."
        )
    return TimestepRange(how.min_timestep, high, global_batch if how.timestep_sampling == "stratified" else 1)
