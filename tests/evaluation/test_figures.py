"""Figures: each from the right pictures, pooled over subjects and seeds, refused where the scale is too short."""

from dataclasses import replace
from typing import Any

import pytest

from dora_diffusion.evaluation.figures import FIGURES, difference, figures, per_subject, refusal
from dora_diffusion.evaluation.likeness import likeness
from dora_diffusion.evaluation.measure import HELD_OUT, Group, Measured

COUNT = 8
GATE = 0.5


def group(cosine: float = 0.5, **changes: Any) -> Group:
    """Pictures that are all as asked, their cosines spread about ``cosine``."""
    spread = [cosine + 0.01 * (k - (COUNT - 1) / 2) for k in range(COUNT)]
    yes = [True] * COUNT
    return replace(Group(spread, [0.9] * COUNT, yes, yes, yes), **changes)


def run(**groups: Group) -> Measured:
    """Floor 0.2, words 0.6, ceiling 1.0."""
    usual = {
        "base_bare": group(0.2),
        "base_worded": group(0.6),
        "base_others": group(0.0),
        "subject": group(0.84),
        "bare": group(0.28),
        "styled": group(0.5),
        "others": group(0.0),
    }
    return Measured("mug", [0.9, 1.1], HELD_OUT, [True], usual | groups, [0.1] * COUNT)


def but(number: int) -> list[bool]:
    """All right but the first ``number``."""
    return [k >= number for k in range(COUNT)]


def values(measured: Measured) -> dict[str, float]:
    return {name: found.value for name, found in figures([[measured]], GATE).items()}


def test_every_figure_by_hand() -> None:
    found = values(run())
    assert found.keys() == FIGURES.keys()
    assert found["likeness"] == pytest.approx(0.8)
    assert found["worded_likeness"] == pytest.approx(0.5)
    assert found["gain_over_words"] == pytest.approx(0.3)
    assert found["leakage"] == pytest.approx(0.1)
    for name in ("scene", "kind", "style", "other_kind", "other_scene"):
        assert found[name] == 1
    for name in ("kind_against_base", "other_kind_against_base", "other_scene_against_base"):
        assert found[name] == 0


@pytest.mark.parametrize(
    ("place", "what", "name", "expected"),
    [
        ("subject", "scene_right", "scene", 0.75),
        ("subject", "class_right", "kind", 0.75),
        ("subject", "class_right", "kind_against_base", -0.25),
        ("base_bare", "class_right", "kind_against_base", 0.25),
        ("styled", "style_right", "style", 0.75),
        ("others", "class_right", "other_kind", 0.75),
        ("others", "class_right", "other_kind_against_base", -0.25),
        ("base_others", "scene_right", "other_scene_against_base", 0.25),
        ("others", "scene_right", "other_scene", 0.75),
    ],
)
def test_a_fault_shows_in_its_figure(place: str, what: str, name: str, expected: float) -> None:
    base = run()
    changed = run(**{place: replace(base.groups[place], **{what: but(2)})})
    assert values(changed)[name] == pytest.approx(expected)
    other = {key for key in FIGURES if values(changed)[key] != pytest.approx(values(base)[key])}
    assert name in other and len(other) <= 2


def test_a_rejected_picture_counts_0_in_likeness_and_not_in_leakage() -> None:
    doubtful = [0.1] * 2 + [0.9] * (COUNT - 2)
    found = values(run(subject=group(0.84, probability=doubtful), bare=group(0.28, probability=doubtful)))
    kept = [0.84 + 0.01 * (k - 3.5) for k in range(2, COUNT)]
    assert found["likeness"] == pytest.approx(sum((s - 0.2) / 0.8 for s in kept) / COUNT)
    assert found["leakage"] == pytest.approx(0.1)


def test_the_figure_agrees_with_the_definition() -> None:
    import torch

    measured = run()
    subject, base = measured.groups["subject"], measured.groups["base_bare"]
    columns = (subject.cosine, [True] * COUNT, base.cosine, measured.ceiling)
    expected = likeness(*(torch.tensor(column) for column in columns))
    assert values(measured)["likeness"] == pytest.approx(expected.mean)


def test_subjects_and_seeds_are_averaged_and_told_apart() -> None:
    grid = [[run(), run(subject=group(0.68))], [run(subject=group(1.0)), run(subject=group(1.0))]]
    found = figures(grid, GATE)["likeness"]
    assert found.value == pytest.approx((0.8 + 0.6 + 1.0 + 1.0) / 4)
    assert found.low < found.value < found.high
    assert per_subject(grid, "likeness", GATE) == [pytest.approx(0.7), pytest.approx(1.0)]


def test_a_short_scale_is_refused_and_the_rest_still_told() -> None:
    near = run(base_bare=group(0.85))
    told = refusal(near)
    assert told is not None and "No likeness can be given" in told
    assert refusal(run()) is None
    found = values(near)
    assert not {"likeness", "worded_likeness", "gain_over_words", "leakage"} & found.keys()
    assert found["scene"] == 1


def test_a_refused_subject_is_left_out_of_the_pool() -> None:
    grid = [[run()], [run(base_bare=group(0.85), subject=group(0.1))]]
    found = figures(grid, GATE)
    assert found["likeness"].value == pytest.approx(0.8)
    assert per_subject(grid, "likeness", GATE) == [pytest.approx(0.8), None]
    assert per_subject(grid, "scene", GATE) == [1, 1]


def test_without_pictures_there_is_no_figure() -> None:
    bare = run()
    groups = {
        name: found for name, found in bare.groups.items() if name not in ("base_worded", "others", "base_others")
    }
    found = values(replace(bare, groups=groups))
    assert found.keys() == {"likeness", "leakage", "scene", "kind", "kind_against_base", "style"}


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    ours = [[run(subject=group(0.6 + 0.05 * k))] for k in range(6)]
    theirs = [[run(subject=group(0.56 + 0.05 * k))] for k in range(6)]
    found = difference(ours, theirs, "likeness", GATE)
    assert found is not None
    assert found.value == pytest.approx(0.05)
    alone = figures(ours, GATE)["likeness"]
    assert alone.high - alone.low > 0.1 > 20 * (found.high - found.low)


def test_a_difference_leaves_out_what_either_side_refuses() -> None:
    short = [run(base_bare=group(0.85))]
    assert difference([short], [[run()]], "likeness", GATE) is None
    found = difference([[run()], short], [[run(subject=group(0.76))], [run()]], "likeness", GATE)
    assert found is not None and found.value == pytest.approx(0.1)
    assert difference([short], [[run()]], "scene", GATE) is not None
