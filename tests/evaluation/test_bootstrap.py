"""Intervals: against closed forms, and by how often they hold the truth."""

import math

import pytest
import torch

from dora_diffusion.evaluation.bootstrap import (
    _t_quantile,
    grand_mean,
    interval,
    proportion_interval,
    resampled,
    wilson,
)
from dora_diffusion.evaluation.likeness import normalised


def nested(subjects: int, seeds: int, pictures: int, generator: torch.Generator) -> torch.Tensor:
    """Figures of mean 0 whose subjects, seeds and pictures all differ."""
    return (
        torch.randn(subjects, 1, 1, generator=generator) * 0.10
        + torch.randn(subjects, seeds, 1, generator=generator) * 0.05
        + torch.randn(subjects, seeds, pictures, generator=generator) * 0.20
    )


def test_one_run_varies_as_the_closed_form_says() -> None:
    table = torch.randn(1, 1, 40, generator=torch.Generator().manual_seed(1))
    expected = table.double().var(unbiased=False) / 40
    assert resampled(table, resamples=20_000).var().item() == pytest.approx(expected.item(), rel=0.05)


def test_three_levels_vary_as_the_closed_form_says() -> None:
    """Each level adds the variance of its units about their own mean, divided by all units drawn down to it."""
    table = nested(6, 3, 10, torch.Generator().manual_seed(2)).double()
    runs, subjects = table.mean(2), table.mean((1, 2))
    expected = (
        subjects.var(unbiased=False) / 6
        + runs.var(1, unbiased=False).mean() / 18
        + table.var(2, unbiased=False).mean() / 180
    )
    assert resampled(table, resamples=20_000).var().item() == pytest.approx(expected.item(), rel=0.05)


def test_the_middle_is_the_figure_itself_and_the_same_every_time() -> None:
    table = nested(4, 2, 6, torch.Generator().manual_seed(3))
    assert grand_mean(table) == pytest.approx(table.double().mean().item())
    assert interval(table, seed=5) == interval(table, seed=5)
    assert interval(table, seed=5) != interval(table, seed=6)
    found = interval(table)
    assert found.low < found.value < found.high and found.value == grand_mean(table)


def test_the_number_of_resamples_held_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    table = nested(3, 2, 4, torch.Generator().manual_seed(4))
    monkeypatch.setattr("dora_diffusion.evaluation.bootstrap._AT_ONCE", 100)
    assert resampled(table, resamples=50).shape == (50,)


def test_columns_of_one_picture_stay_together() -> None:
    """A gain that is the same in every picture has no width, however much the pictures differ."""
    first = torch.randn(5, 2, 8, generator=torch.Generator().manual_seed(5))
    both = torch.stack([first + 0.3, first], -1)
    found = interval(both, lambda p: (p[..., 0] - p[..., 1]).mean(-1))
    assert (found.low, found.high) == (pytest.approx(0.3), pytest.approx(0.3))


def test_the_floor_is_drawn_again_too() -> None:
    """The ratio's interval is wider than that of cosines over a fixed floor."""
    generator = torch.Generator().manual_seed(6)
    cosine = 0.85 + 0.02 * torch.randn(1, 1, 24, generator=generator)
    base = 0.2 + 0.25 * torch.randn(1, 1, 24, generator=generator)

    def ratio(pictures: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
        return normalised(pictures[..., 0], torch.ones(()), floor, torch.tensor(0.9)).mean(-1)

    table = torch.stack([cosine, base], -1)
    moving = interval(table, lambda p: ratio(p, p[..., 1].mean(-1, keepdim=True)))
    fixed = interval(table, lambda p: ratio(p, base.mean()))
    assert moving.high - moving.low > 1.2 * (fixed.high - fixed.low)


@pytest.mark.parametrize(("subjects", "seeds", "pictures"), [(12, 2, 24), (6, 1, 24), (1, 1, 24)])
def test_the_truth_lies_inside_as_often_as_promised(subjects: int, seeds: int, pictures: int) -> None:
    generator = torch.Generator().manual_seed(7)
    inside = 0
    for trial in range(300):
        table = nested(subjects, seeds, pictures, generator)
        if subjects == 1:  # one run can only speak of its own pictures
            table = 0.2 * torch.randn(1, 1, pictures, generator=generator)
        found = interval(table, resamples=400, seed=trial)
        inside += found.low <= 0 <= found.high
    assert 0.92 <= inside / 300 <= 0.995


def test_student_quantiles_from_the_table() -> None:
    z = 1.959964
    for freedom, expected in [(3, 3.1824), (5, 2.5706), (11, 2.2010), (30, 2.0423), (10_000, 1.9602)]:
        assert _t_quantile(z, freedom) == pytest.approx(expected, rel=0.01)


def test_wilson_by_the_book() -> None:
    assert wilson(16, 16) == (pytest.approx(0.806, abs=1e-3), pytest.approx(1.0))
    assert wilson(0, 10) == (pytest.approx(0.0), pytest.approx(0.278, abs=1e-3))
    low, high = wilson(50, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-3), pytest.approx(0.5962, abs=1e-3))


def test_all_right_is_not_certainty() -> None:
    found = proportion_interval(torch.ones(1, 1, 64, dtype=torch.bool))
    assert found.value == 1 and found.high == 1 and found.low == pytest.approx(0.943, abs=1e-3)


def test_subjects_that_differ_widen_a_share_beyond_wilson() -> None:
    table = torch.zeros(8, 1, 24, dtype=torch.bool)
    table[:4] = True
    low, high = wilson(96, 192)
    found = proportion_interval(table)
    assert found.low < low - 0.1 and found.high > high + 0.1 and math.isclose(found.value, 0.5)
