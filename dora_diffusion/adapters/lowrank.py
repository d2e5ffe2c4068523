"""The best low-rank approximation of a matrix, and how good it is: what plain LoRA, resizing and extraction rest on.

The change that a DoRA makes, ``W' - W0 = (g - 1) W0 + g scale B A``, has full rank in general, so a plain LoRA of it
leaves something out. By Eckart and Young the least that rank r can leave out is what the singular values past the r-th
hold; a randomised SVD comes within a percent of it at a fraction of the cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

_POWERS = 3  # subspace iterations: the tail that magnitudes leave is flat, and two still cost a percent or two there


@dataclass(frozen=True)
class RankRule:
    """How many ranks a layer is given.

    Args:
        rank: of every layer; a layer smaller than that has its own size. The largest, if one of the others is given.
        energy: the smallest rank that keeps this share of ``||D||^2`` (Frobenius), in (0, 1].
        error: the smallest rank that leaves at most this share of ``||D||``, in [0, 1): ``error^2 = 1 - energy``.
    """

    rank: int
    energy: float | None = None
    error: float | None = None

    def choose(self, singular_values: Tensor, squared_norm: float) -> int:
        """The rank of a layer, at least 1.

        Args:
            singular_values: the largest of the layer's, descending, at most ``rank`` of them.
            squared_norm: ``||D||^2``, all singular values' squares.
        """
        most = max(1, min(self.rank, len(singular_values)))
        share = self._share()
        if share is None:
            return most
        kept = singular_values[:most].double().square().cumsum(0)
        enough = (kept >= share * squared_norm).nonzero()
        return int(enough[0]) + 1 if len(enough) else most

    def is_met(self, fit: "Fit") -> bool:
        """Whether the layer keeps what was asked for; a rule by count always is."""
        share = self._share()
        return share is None or fit.squared_residual <= (1 - share) * fit.squared_change * (1 + 1e-6)

    def _share(self) -> float | None:
        if self.energy is not None:
            return self.energy
        return None if self.error is None else 1 - self.error**2


@dataclass(frozen=True)
class Fit:
    """How much of one layer's change was kept, measured on the weights: squared Frobenius norms."""

    rank: int
    squared_change: float
    squared_residual: float

    @property
    def residual(self) -> float:
        """``||D - D'|| / ||D||``; 0 for a layer that does not change."""
        return (self.squared_residual / self.squared_change) ** 0.5 if self.squared_change else 0.0


@dataclass(frozen=True)
class Fits:
    """How much of an adapter was kept, layer by layer."""

    layers: Mapping[str, Fit]

    @property
    def residual(self) -> float:
        """Of all layers as one vector."""
        change = sum(fit.squared_change for fit in self.layers.values())
        return (sum(fit.squared_residual for fit in self.layers.values()) / change) ** 0.5 if change else 0.0

    @property
    def worst(self) -> tuple[str, float]:
        """The layer with the largest residual, and that."""
        name = max(self.layers, key=lambda name: self.layers[name].residual)
        return name, self.layers[name].residual

    def short_of(self, rule: RankRule) -> list[str]:
        """Layers that stopped at the rule's largest rank before they kept what it asks for."""
        return [name for name, fit in self.layers.items() if not rule.is_met(fit)]


def low_rank(matrix: Tensor, rule: RankRule, seed: int = 0) -> tuple[Tensor, Tensor, Fit]:
    """``A (rank, in)`` and ``B (out, rank)`` whose product is nearest to ``matrix (out, in)``, and how near.

    The singular values are shared evenly, so that both factors are of one size and fit half precision. The residual is
    measured on the product.
    """
    squared_norm = float(matrix.double().square().sum())
    U, S, Vh = truncated_svd(matrix, min(rule.rank, *matrix.shape), seed)
    rank = rule.choose(S, squared_norm)
    root = S[:rank].sqrt()
    B, A = U[:, :rank] * root, root[:, None] * Vh[:rank]
    left = float((matrix - B @ A).double().square().sum())
    return A.contiguous(), B.contiguous(), Fit(rank, squared_norm, left)


def whole(change: Tensor) -> tuple[Tensor, Tensor, Fit]:
    """``A`` and ``B`` whose product is ``change (out, in)`` to the bit: one is the change, the other the identity of
    the smaller side, which adds nothing but zeros.
    """
    rows, columns = change.shape
    squared = float(change.double().square().sum())
    A, B = (change, torch.eye(rows)) if rows <= columns else (torch.eye(columns), change)
    return A, B, Fit(min(rows, columns), squared, 0.0)


def truncated_svd(matrix: Tensor, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The first ``rank`` singular triplets: ``U (out, rank)``, ``S (rank,)`` descending, ``Vh (rank, in)``.

    Exact for a matrix not much larger than the rank, else by randomised subspace iteration (Halko, Martinsson and
    Tropp, arXiv:0909.4061, algorithms 4.4 and 5.1). In the matrix's precision; the same for the same seed.
    """
    width = rank + max(8, rank // 2)
    if min(matrix.shape) <= max(128, 2 * width):
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        return U[:, :rank], S[:rank], Vh[:rank]
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(matrix.shape[1], width, generator=generator).to(matrix)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_POWERS):
        basis = torch.linalg.qr(matrix.mT @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    inner, S, Vh = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
    return (basis @ inner[:, :rank]), S[:rank], Vh[:rank]


def layer_seed(name: str) -> int:
    """A seed of a layer's own: what is drawn for it does not depend on which other layers there are."""
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "little")


def effective_rank(A: Tensor, B: Tensor) -> float:
    """How many directions ``B A`` really uses: ``exp`` of the entropy of its singular values as shares of their sum
    (Roy and Vetterli, EUSIPCO 2007); 0 for a product of zeros.

    From the factors' own QR decompositions, so that the product is never formed.
    """
    S = torch.linalg.svdvals(torch.linalg.qr(B.double()).R @ torch.linalg.qr(A.double().mT).R.mT)
    if not float(S.sum()):
        return 0.0
    share = S / S.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))
