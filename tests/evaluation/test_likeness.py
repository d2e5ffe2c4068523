"""The definition of likeness, against numbers worked out by hand."""

import math

import pytest
import torch

from dora_diffusion.errors import DataError
from dora_diffusion.evaluation.likeness import (
    class_probability,
    leave_one_out,
    likeness,
    normalised,
    photo_cosines,
)


def at(*degrees: float) -> torch.Tensor:
    """Unit vectors in the plane."""
    angles = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], 1)


YES = torch.ones(2, dtype=torch.bool)


def test_a_picture_is_compared_with_every_photo() -> None:
    found = photo_cosines(at(0, 90), at(0, 60))
    assert found.tolist() == pytest.approx([(1 + 0.5) / 2, (0 + math.cos(math.pi / 6)) / 2], abs=1e-6)


def test_lengths_of_embeddings_do_not_matter() -> None:
    torch.testing.assert_close(photo_cosines(3 * at(20), 7 * at(0, 50)), photo_cosines(at(20), at(0, 50)))


def test_leave_one_out_leaves_the_photo_itself_out() -> None:
    assert leave_one_out(at(0, 60, 90)).tolist() == pytest.approx(
        [(0.5 + 0) / 2, (0.5 + math.cos(math.pi / 6)) / 2, (0 + math.cos(math.pi / 6)) / 2], abs=1e-6
    )
    with pytest.raises(DataError, match=r"two training photos at least, or held-out .*; there is 1\."):
        leave_one_out(at(0))


def test_floor_is_0_and_ceiling_is_1_and_nothing_is_clipped() -> None:
    found = likeness(torch.tensor([0.3, 0.9, 1.0, 0.0]), torch.ones(4), torch.tensor([0.2, 0.4]), torch.tensor([0.9]))
    assert found.values.tolist() == pytest.approx([0, 1, 7 / 6, -0.5], abs=1e-6)
    assert (found.floor, found.ceiling) == (pytest.approx(0.3), pytest.approx(0.9))
    assert found.mean == pytest.approx((0 + 1 + 7 / 6 - 0.5) / 4)


def test_a_rejected_picture_counts_0_whatever_its_cosine() -> None:
    found = likeness(torch.tensor([0.9, 0.9]), torch.tensor([True, False]), torch.tensor([0.1]), torch.tensor([0.9]))
    assert found.values.tolist() == pytest.approx([1, 0])


def test_points_too_near_are_refused_in_one_sentence() -> None:
    with pytest.raises(DataError) as caught:
        likeness(torch.tensor([0.9, 0.9]), YES, torch.tensor([0.65]), torch.tensor([0.8]))
    told = str(caught.value)
    assert "(cosine 0.80)" in told and "(0.65)" in told and "0.2 apart" in told and "\n" not in told
    likeness(torch.tensor([0.9, 0.9]), YES, torch.tensor([0.55]), torch.tensor([0.8]))


def test_normalised_broadcasts_over_resamples() -> None:
    cosines = torch.rand(5, 3, 4)
    floor = torch.rand(5, 3, 1) / 2
    found = normalised(cosines, torch.ones(5, 3, 4), floor, torch.tensor(0.9))
    torch.testing.assert_close(found[2, 1], (cosines[2, 1] - floor[2, 1]) / (0.9 - floor[2, 1]))


def test_nothing_is_a_class_too() -> None:
    logits = torch.tensor([[0.0, 0.0, 10.0]])  # two classes and "nothing"
    assert class_probability(logits, 0).item() < 1e-3
