"""Low-rank approximation against exact decompositions in float64, closed forms and the rules by hand."""

import math

import pytest
import torch
from torch import Tensor

from dora_diffusion.adapters.lowrank import Fit, Fits, RankRule, effective_rank, layer_seed, low_rank, truncated_svd


def with_spectrum(rows: int, columns: int, values: Tensor, seed: int = 0) -> Tensor:
    """A matrix (rows, columns) in float64 that has these singular values."""
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(rows, len(values), generator=generator, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(columns, len(values), generator=generator, dtype=torch.float64)).Q
    return U * values @ V.mT


def dora_like(rows: int, columns: int, rank: int) -> Tensor:
    """A low-rank update and the flat tail that changed magnitudes leave: ``(g - 1) W0 + B A``, float64."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return 0.01 * draw(rows, 1) * draw(rows, columns) + 0.01 * draw(rows, rank) @ draw(rank, columns)


@pytest.mark.parametrize("shape", [(400, 300), (300, 640), (640, 320), (96, 700), (5, 9)])
@pytest.mark.parametrize("rank", [4, 16])
def test_within_a_percent_of_the_best_there_is(shape: tuple[int, int], rank: int) -> None:
    """Eckart and Young: no product of that rank leaves less than the singular values past it."""
    exact = dora_like(*shape, rank=16)
    S = torch.linalg.svdvals(exact)
    A, B, fit = low_rank(exact.float(), RankRule(rank), seed=1)
    rank = min(rank, *shape)
    assert A.shape == (rank, shape[1]) and B.shape == (shape[0], rank) and fit.rank == rank
    left = (exact - B.double() @ A.double()).norm()
    best = S[rank:].square().sum().sqrt()
    assert best * (1 - 1e-6) - 1e-6 * S[0] <= left <= best * 1.01 + 1e-6 * exact.norm()
    assert fit.residual == pytest.approx(float(left / exact.norm()), rel=1e-4, abs=1e-6)


def test_float32_is_float64_to_its_precision() -> None:
    matrix = with_spectrum(500, 400, 10.0 ** -torch.linspace(0, 6, 60, dtype=torch.float64))
    _, wide, _ = truncated_svd(matrix, 12)
    U, narrow, Vh = truncated_svd(matrix.float(), 12)
    assert narrow.dtype == torch.float32
    assert torch.allclose(narrow.double(), wide, rtol=1e-5, atol=1e-6)
    assert torch.allclose(wide, torch.linalg.svdvals(matrix)[:12], rtol=1e-8)
    assert torch.allclose(U.mT @ U, torch.eye(12), atol=1e-5) and torch.allclose(Vh @ Vh.mT, torch.eye(12), atol=1e-5)


def test_a_matrix_of_that_rank_is_met_exactly() -> None:
    matrix = with_spectrum(600, 500, torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    A, B, fit = low_rank(matrix, RankRule(4))
    assert fit.residual < 1e-13
    assert torch.allclose(B.norm(dim=0), A.norm(dim=1)), "the singular values are shared evenly"
    assert torch.allclose(B.norm(dim=0) ** 2, torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64))


def test_the_same_seed_gives_the_same_bits_and_another_one_the_same_product() -> None:
    matrix = dora_like(500, 400, 4).float()
    first, again, other = (low_rank(matrix, RankRule(8), seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[2].residual == pytest.approx(other[2].residual, rel=1e-2)


def test_nothing_of_a_layer_is_drawn_from_the_process() -> None:
    matrix = dora_like(500, 400, 4).float()
    torch.manual_seed(1)
    first = low_rank(matrix, RankRule(8), seed=5)[0]
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(low_rank(matrix, RankRule(8), seed=5)[0], first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert layer_seed("unet.a") != layer_seed("unet.b")


VALUES = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)  # squares 16, 9, 4, 1 of 30


@pytest.mark.parametrize(
    ("rule", "rank"),
    [
        (RankRule(3), 3),
        (RankRule(4, energy=16 / 30 - 1e-9), 1),
        (RankRule(4, energy=0.54), 2),
        (RankRule(4, energy=29 / 30 - 1e-9), 3),
        (RankRule(4, energy=1.0), 4),
        (RankRule(2, energy=0.99), 2),
        (RankRule(4, error=math.sqrt(5 / 30) + 1e-9), 2),
        (RankRule(4, error=math.sqrt(5 / 30) - 1e-6), 3),
        (RankRule(4, error=0.99), 1),
    ],
)
def test_the_rank_of_a_rule_by_hand(rule: RankRule, rank: int) -> None:
    assert rule.choose(VALUES, 30.0) == rank
    A, _, fit = low_rank(with_spectrum(20, 30, VALUES), rule)
    assert len(A) == fit.rank == rank
    assert fit.residual == pytest.approx(math.sqrt(float(VALUES[rank:].square().sum()) / 30), abs=1e-12)


def test_a_rank_above_a_layers_size_is_that_size() -> None:
    assert RankRule(9).choose(VALUES, 30.0) == 4
    assert len(low_rank(torch.eye(3, 5), RankRule(9))[0]) == 3


def test_layers_that_stopped_at_the_largest_rank_are_named() -> None:
    fits = Fits({"a": Fit(2, 30.0, 5.0), "b": Fit(1, 10.0, 0.1)})
    assert fits.short_of(RankRule(2, energy=0.9)) == ["a"] and fits.short_of(RankRule(2)) == []
    assert fits.short_of(RankRule(2, error=0.05)) == ["a", "b"]
    assert fits.residual == pytest.approx(math.sqrt(5.1 / 40))
    assert fits.worst == ("a", pytest.approx(math.sqrt(5 / 30)))


def test_a_matrix_of_zeros_is_no_trouble() -> None:
    A, B, fit = low_rank(torch.zeros(300, 400), RankRule(4, energy=0.9))
    assert not (B @ A).any() and torch.isfinite(A).all() and fit == Fit(1, 0.0, 0.0) and fit.residual == 0
    assert Fits({"a": fit}).residual == 0


@pytest.mark.parametrize("count", [1, 5])
def test_the_effective_rank_of_equal_directions_is_their_number(count: int) -> None:
    product = with_spectrum(40, 30, torch.full((count,), 0.3, dtype=torch.float64))
    A, B, _ = low_rank(product, RankRule(8))
    assert effective_rank(A, B) == pytest.approx(count, rel=1e-6)


def test_the_effective_rank_by_hand() -> None:
    A, B = torch.eye(2, 6), torch.eye(8, 2) * torch.tensor([3.0, 1.0])
    assert effective_rank(A, B) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert effective_rank(A, torch.zeros(8, 2)) == 0
