"""The statistics of the eye's tests: shares, areas under the curve, recall, each with a bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Figure:
    """A measured value, its interval and how many independent things (pictures, toys) it rests on."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(positives: Tensor, negatives: Tensor) -> Tensor:
    """How likely a positive scores above a negative, ties counting half: the area under the ROC curve.

    Args:
        positives, negatives: ``(..., n)`` and ``(..., m)``.

    Returns:
        ``(...)``.
    """
    ordered = negatives.sort(-1).values.contiguous()
    scores = positives.contiguous()
    below = torch.searchsorted(ordered, scores).double()
    upto = torch.searchsorted(ordered, scores, right=True).double()
    return ((below + upto) / 2).mean(-1) / negatives.shape[-1]


def recall_at_1(queries: Tensor, gallery: Tensor) -> Tensor:
    """``(n,)`` 1.0 where row i of ``queries`` is nearest to row i of ``gallery``; both ``(n, d)`` of unit length."""
    nearest = (queries @ gallery.T).argmax(1)
    return (nearest == torch.arange(len(queries), device=nearest.device)).double()


def mean_figure(values: Tensor, seed: int, times: int) -> Figure:
    """The mean of ``(n,)`` independent values."""
    return bootstrapped(lambda rows: rows[..., 0].mean(-1), values.double()[:, None], seed, times)


def auc_figure(positives: Tensor, negatives: Tensor, seed: int, times: int) -> Figure:
    """The AUC of ``(n,)`` pairs of scores, resampled pair by pair since a pair belongs to one toy."""
    pairs = torch.stack([positives, negatives], -1).double()
    return bootstrapped(lambda rows: auc(rows[..., 0], rows[..., 1]), pairs, seed, times)


def bootstrapped(statistic: Callable[[Tensor], Tensor], rows: Tensor, seed: int, times: int) -> Figure:
    """``statistic`` of ``rows`` with the percentile interval of ``times`` resamplings.

    Args:
        statistic: ``(..., n, k)`` to ``(...)``.
        rows: ``(n, k)``, the independent observations.

    Source: B. Efron, Bootstrap Methods, 1979.
    """
    rows = rows.cpu()
    drawn = torch.randint(len(rows), (times, len(rows)), generator=Generator().manual_seed(seed))
    # In parts: a thousand copies of thousands of rows are gigabytes.
    values = torch.cat([statistic(rows[part]) for part in drawn.split(max(1, 2_000_000 // len(rows)))])
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = values.quantile(edges).tolist()
    return Figure(float(statistic(rows)), low, high, len(rows))


def plain(figures: Any) -> Any:
    """``figures`` with every ``Figure`` as a dictionary of rounded numbers, ready for JSON."""
    if isinstance(figures, Figure):
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in vars(figures).items()}
    if isinstance(figures, dict):
        return {name: plain(value) for name, value in figures.items()}
    if isinstance(figures, list):
        return [plain(value) for value in figures]
    return round(figures, 6) if isinstance(figures, float) else figures
