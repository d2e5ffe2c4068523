"""The curves stay inside their pictures and say in words what they show."""

import re

import pytest

from dora_diffusion.studio.ui.curve import likeness_curve, loss_curve


def points(svg: str, kind: str) -> list[tuple[float, float]]:
    line = re.search(rf'class="{kind}" points="([^"]*)"', svg)
    assert line is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line[1].split())]


def test_no_curve_of_one_loss() -> None:
    assert loss_curve([], 10) == loss_curve([(1, 0.5)], 10) == ""


def test_the_curve_stays_in_its_picture_and_falls_with_the_loss() -> None:
    svg = loss_curve([(step, 1 / step) for step in range(1, 101)], 200)
    for kind in ("raw", "mean"):
        drawn = points(svg, kind)
        assert all(62 <= x <= 546 and 12 <= y <= 144 for x, y in drawn)
        assert drawn == sorted(drawn)  # to the right, and down: y grows downwards in SVG
    assert 'aria-label="Loss over 100 of 200 steps' in svg and 'role="img"' in svg


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_flat_curve_is_drawn(value: float) -> None:
    svg = loss_curve([(1, value), (2, value)], 2)
    assert len({y for _, y in points(svg, "raw")}) == 1


def test_a_long_curve_is_thinned_but_keeps_its_end() -> None:
    svg = loss_curve([(step, 0.5) for step in range(1, 10_001)], 10_000)
    drawn = points(svg, "raw")
    assert len(drawn) < 450 and drawn[-1][0] == 546.0


def test_likeness_lies_between_the_base_and_the_photos() -> None:
    svg = likeness_curve([(0, 0.0), (100, 1.0)], 100)
    assert points(svg, "mean") == [(62.0, 144.0), (546.0, 12.0)]
    assert svg.count("<circle") == 2 and "now 100%" in svg


def test_the_best_step_is_ringed_and_named() -> None:
    svg = likeness_curve([(0, 0.1), (50, 0.8), (100, 0.6)], 100, best_step=50)
    assert svg.count('class="best"') == 1 and "Most like your photos: step 50 with 80%." in svg


@pytest.mark.parametrize("value", [-0.4, 1.7])
def test_likeness_outside_of_both_stays_in_the_picture(value: float) -> None:
    svg = likeness_curve([(0, 0.5), (100, value)], 100)
    assert all(12 <= y <= 144 for _, y in points(svg, "mean"))


def test_no_likeness_is_more_than_all_of_it() -> None:
    svg = likeness_curve([(0, 0.5), (50, 1.01), (100, 1.3)], 100, best_step=100)
    assert points(svg, "mean")[1:] == [(304.0, 12.0), (546.0, 12.0)]
    assert ">100%</text>" in svg and "now 100%" in svg and "step 100 with 100%" in svg


def test_no_likeness_no_curve() -> None:
    assert likeness_curve([], 100) == ""
