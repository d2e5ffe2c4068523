"""Intervals for figures that come from few subjects, fewer training seeds and many pictures.

Pictures of one run are more alike than pictures of two, so they are not independent: subjects are drawn again with
replacement, then the training seeds of each, then the pictures of each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

RESAMPLES = 4000
LEVEL = 0.95
_AT_ONCE = 4_000_000  # numbers held in memory while resampling

# (..., pictures, columns) to (...): what one run's pictures come to.
Statistic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Interval:
    """A figure with its interval: ``value`` from the pictures as they are, ``low`` and ``high`` at ``LEVEL``."""

    value: float
    low: float
    high: float


def mean(pictures: Tensor) -> Tensor:
    """The mean of the first column."""
    return pictures[..., 0].mean(-1)


def grand_mean(table: Tensor, statistic: Statistic = mean) -> float:
    """The statistic of every run, averaged over seeds, then over subjects."""
    return statistic(_columns(table)).mean().item()


def resampled(table: Tensor, statistic: Statistic = mean, *, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """The grand mean of ``resamples`` tables drawn from ``table``.

    Shapes: (subjects, seeds, pictures) or (subjects, seeds, pictures, columns) to (resamples,), float64. What belongs
    together, such as one seed drawn by two models, are columns of one picture and stay together.
    """
    table = _columns(table)
    subjects, seeds, pictures = table.shape[:3]
    generator = torch.Generator().manual_seed(seed)

    def draw(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=generator)

    parts = []
    step = max(1, _AT_ONCE // table.numel())
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        which_subject = draw(subjects, count, subjects)[:, :, None, None]
        which_seed = draw(seeds, count, subjects, seeds)[..., None]
        drawn = table[which_subject, which_seed, draw(pictures, count, subjects, seeds, pictures)]
        parts.append(statistic(drawn).mean((1, 2)))
    return torch.cat(parts)


def interval(
    table: Tensor, statistic: Statistic = mean, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The grand mean of ``table`` and its interval, reproducible by ``seed``.

    The quantiles are taken further out than ``level`` says, by what a t-interval would differ from a normal one: with a
    dozen subjects the plain percentile interval covers the truth too rarely. Drawing again on every level errs on the
    wide side. Source: Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), on expanded percentiles.
    """
    values = resampled(table, statistic, resamples=resamples, seed=seed)
    tail = _tail(next((n for n in table.shape[:3] if n > 1), 1), level)
    low, high = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return Interval(grand_mean(table, statistic), low, high)


def proportion_interval(table: Tensor, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """As ``interval``, of the share of true entries, but never narrower than Wilson's: resampling pictures that are all
    right gives a width of zero.
    """
    found = interval(table.double(), level=level, resamples=resamples, seed=seed)
    low, high = wilson(int(table.sum()), table.numel(), level)
    return Interval(found.value, min(found.low, low), max(found.high, high))


def wilson(successes: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share of independent trials."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, correction = successes / count, z * z / count
    middle = (share + correction / 2) / (1 + correction)
    half = z / (1 + correction) * math.sqrt(share * (1 - share) / count + correction / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _columns(table: Tensor) -> Tensor:
    table = table.double()
    return table[..., None] if table.dim() == 3 else table


def _tail(units: int, level: float) -> float:
    """The share cut off on either side, for ``units`` independent things."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    if units < 2:
        return (1 - level) / 2
    stretched = math.sqrt(units / (units - 1)) * _t_quantile(z, units - 1)
    return max(NormalDist().cdf(-stretched), 0.0)


def _t_quantile(z: float, freedom: int) -> float:
    """Student's quantile from the normal one, by the Cornish-Fisher series (Abramowitz and Stegun 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
