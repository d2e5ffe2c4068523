"""Near-copies: a training photo is caught however it was touched up, another view of its toy is not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.data.photos import list_photos
from dora_diffusion.evaluation.copies import (
    SIDE,
    THRESHOLD,
    WINDOW,
    _correlation,
    _shrunk,
    _templates,
    copy_scores,
    repeats,
)
from dora_diffusion.evaluation.evaluate import photo_tensor

EDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "darker": lambda x: x * 0.8,
    "brighter": lambda x: (x * 1.15).clamp(0, 1),
    "warmer": lambda x: (x * torch.tensor([1.1, 1.0, 0.9])[:, None, None]).clamp(0, 1),
    "mirrored": lambda x: x.flip(3),
    "shifted": lambda x: x.roll((6, -7), (2, 3)),
    "zoomed in": lambda x: F.interpolate(x[:, :, 4:-4, 4:-4], (128, 128), mode="bilinear"),
    "zoomed out": lambda x: F.interpolate(F.pad(x, (8,) * 4, mode="replicate"), (128, 128), mode="bilinear"),
    "soft": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "noisy": lambda x: (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
}


def is_copy(pictures: Tensor, photos: Tensor) -> Tensor:
    return copy_scores(pictures, photos) >= THRESHOLD


@pytest.fixture(scope="module")
def subjects(repository: Path) -> list[Tensor]:
    """Five photos each of six toys, in five scenes."""
    folders = sorted((repository / "samples" / "subjects").iterdir())
    return [photo_tensor(list_photos(folder)[:5], 128) for folder in folders]


@pytest.mark.parametrize("edit", EDITS)
def test_a_touched_up_photo_is_a_copy(subjects: list[Tensor], edit: str) -> None:
    for photos in subjects:
        assert is_copy(EDITS[edit](photos), photos).all(), copy_scores(EDITS[edit](photos), photos)


def other_views(subjects: list[Tensor]) -> Tensor:
    """Of every photo, how nearly it is another photo of the same toy."""
    rest = [[k for k in range(5) if k != left] for left in range(5)]
    return torch.cat([copy_scores(p[left : left + 1], p[rest[left]]) for p in subjects for left in range(5)])


def test_another_view_is_none(subjects: list[Tensor]) -> None:
    assert other_views(subjects).max() < THRESHOLD


def test_another_toy_and_empty_pictures_are_none(subjects: list[Tensor]) -> None:
    assert not is_copy(subjects[0], subjects[1]).any()
    flat = torch.cat([torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), 0.5)])
    assert copy_scores(flat, subjects[0]).max() < 0.5
    assert copy_scores(torch.rand(2, 3, 96, 96), subjects[0]).max() < 0.5


def test_the_threshold_lies_well_between_the_two(subjects: list[Tensor]) -> None:
    edited = torch.cat([copy_scores(edit(photos), photos) for edit in EDITS.values() for photos in subjects])
    assert edited.min() > THRESHOLD + 0.02
    assert other_views(subjects).max() < THRESHOLD - 0.08


def test_scores_are_correlations(subjects: list[Tensor]) -> None:
    """Against the definition: a window's correlation with a template, both without their mean."""
    photos = subjects[0][:2]
    templates = _templates(photos)
    found = _correlation(_shrunk(photos, SIDE), templates)
    assert found.shape == (2, 4, SIDE - WINDOW + 1, SIDE - WINDOW + 1)
    window = _shrunk(photos, SIDE)[1, :, 3 : 3 + WINDOW, 5 : 5 + WINDOW]
    centred = window - window.mean((1, 2), keepdim=True)
    assert found[1, 2, 3, 5].item() == pytest.approx(float((centred * templates[2]).sum() / centred.norm()), abs=1e-4)


def test_a_pose_in_the_scene_asked_for_is_no_copy() -> None:
    assert repeats([0.99, 0.95, 0.5, 0.97], [False, True, False, True]) == (1, 2)
    assert repeats([THRESHOLD, THRESHOLD - 0.001], [False, False]) == (1, 0)
