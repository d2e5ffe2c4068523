"""Photos become training pictures pixel for pixel; crops and mirrors are drawn for every sample."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dora_diffusion.data.views import Photos, View
from dora_diffusion.errors import DataError

SIDE = 32


def counted_pixels(width: int, height: int) -> np.ndarray:
    """(height, width, 3): every pixel tells its column, its row and its photo's width."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)[None, :]
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = width
    return pixels


def make(folder: Path, *sizes: tuple[int, int], center_crop: bool = False, random_flip: bool = False) -> Photos:
    """Photos of hand-made pictures with these (width, height)."""
    paths = []
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number}.png")
        Image.fromarray(counted_pixels(*size)).save(paths[-1])
    return Photos(paths, SIDE, center_crop=center_crop, random_flip=random_flip, name="instance")


def as_values(pixels: np.ndarray) -> Tensor:
    """What 8-bit pixels are to the model: 0 is -1, 255 is 1."""
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)


def test_framing_tells_the_photos_own_size_and_where_the_crop_lies(tmp_path: Path) -> None:
    photos = make(tmp_path, (80, SIDE), (2 * SIDE, 100))
    assert photos.framing(View(0, 17, 0, False)) == (SIDE, 80, 0, 17, SIDE, SIDE)
    mirrored = 80 - SIDE - 17  # counted from the left edge of the mirrored picture
    assert photos.framing(View(0, 17, 0, True)) == (SIDE, 80, 0, mirrored, SIDE, SIDE)
    assert photos.framing(View(1, 0, 5, False)) == (100, 2 * SIDE, 5, 0, SIDE, SIDE)


@pytest.mark.parametrize("flip", [False, True])
def test_a_view_is_the_very_pixels(tmp_path: Path, flip: bool) -> None:
    photos = make(tmp_path, (80, SIDE), (SIDE, 50))
    for view, window in (
        (View(0, 17, 0, flip), counted_pixels(80, SIDE)[:, 17:49]),
        (View(1, 0, 18, flip), counted_pixels(SIDE, 50)[18:50]),
    ):
        values = photos.pixel_values(view)
        expected = window[:, ::-1] if flip else window
        assert torch.equal(values, as_values(np.ascontiguousarray(expected)))
        assert values.dtype == torch.float32


def test_black_is_minus_one_and_white_is_one(tmp_path: Path) -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, 16:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    values = Photos([tmp_path / "half.png"], SIDE, center_crop=True, random_flip=False, name="x").pixel_values(
        View(0, 0, 0, False)
    )
    assert (float(values[:, :, :16].max()), float(values[:, :, 16:].min())) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("size", "room"), [((128, 64), (32, 0)), ((64, 96), (0, 16)), ((64, 64), (0, 0)), ((20, 10), (32, 0))]
)
def test_the_shorter_side_is_brought_to_the_resolution(
    tmp_path: Path, size: tuple[int, int], room: tuple[int, int]
) -> None:
    photos = make(tmp_path, size)
    views = [photos.view(0, sample) for sample in range(200)]
    assert (max(view.left for view in views), max(view.top for view in views)) == room
    assert (min(view.left for view in views), min(view.top for view in views)) == (0, 0)
    assert {tuple(photos.pixel_values(view).shape) for view in views[:9]} == {(3, SIDE, SIDE)}


def test_resizing_keeps_the_proportions(tmp_path: Path) -> None:
    """In a photo twice as wide as high, brought to half its size, a column's number grows by two a pixel."""
    values = make(tmp_path, (128, 64)).pixel_values(View(0, 8, 0, False))
    columns = (values[0, 5] + 1) * 127.5
    torch.testing.assert_close(columns, 2.0 * torch.arange(8, 40) + 0.5, rtol=0, atol=0.6)


def test_crops_vary_over_the_samples_and_over_the_passes(tmp_path: Path) -> None:
    photos = make(tmp_path, (96, SIDE))
    places = Counter(photos.view(0, sample).left for sample in range(2000))
    assert set(places) == set(range(65))
    assert max(places.values()) < 60  # 31 expected each: five standard deviations


def test_a_centre_crop_is_always_the_same(tmp_path: Path) -> None:
    photos = make(tmp_path, (96, SIDE), (SIDE, 47), center_crop=True)
    views = {photos.view(0, sample) for sample in range(50)}
    assert views == {View(0, 32, 0, False), View(1, 0, 7, False)}


@pytest.mark.parametrize("center_crop", [False, True])
def test_half_of_the_samples_are_mirrored(tmp_path: Path, center_crop: bool) -> None:
    flipping = make(tmp_path, (96, SIDE), center_crop=center_crop, random_flip=True)
    flipped = sum(flipping.view(0, sample).flip for sample in range(1000))
    assert 430 < flipped < 570  # 4.4 standard deviations
    plain = make(tmp_path, (96, SIDE), center_crop=center_crop)
    assert not any(plain.view(0, sample).flip for sample in range(100))


def test_views_are_a_function_of_seed_and_sample(tmp_path: Path) -> None:
    sizes = ((96, SIDE), (SIDE, 50), (70, SIDE))
    walked = make(tmp_path, *sizes, random_flip=True)
    views = [walked.view(3, sample) for sample in range(60)]
    fresh = make(tmp_path, *sizes, random_flip=True)
    assert [fresh.view(3, sample) for sample in reversed(range(60))] == views[::-1]
    assert [fresh.view(4, sample) for sample in range(60)] != views


def test_every_pass_shows_each_photo_once(tmp_path: Path) -> None:
    photos = make(tmp_path, *[(40, SIDE)] * 7)
    assert len(photos) == 7
    for first in range(0, 70, 7):
        assert sorted(photos.view(0, sample).photo for sample in range(first, first + 7)) == list(range(7))


def test_two_kinds_of_photos_are_drawn_apart(tmp_path: Path) -> None:
    instance = make(tmp_path, *[(40, SIDE)] * 7)
    of_class = Photos(instance.paths, SIDE, center_crop=False, random_flip=False, name="class")
    assert [instance.view(0, n) for n in range(20)] != [of_class.view(0, n) for n in range(20)]


def test_only_a_fixed_crop_is_worth_keeping(tmp_path: Path) -> None:
    drawn, centred = make(tmp_path, (96, SIDE), (64, 64)), make(tmp_path, (96, SIDE), center_crop=True)
    assert not drawn.has_few_views(View(0, 3, 0, False))
    assert drawn.has_few_views(View(1, 0, 0, True))
    assert centred.has_few_views(View(0, 32, 0, False))


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        Photos([tmp_path / "broken.jpg"], SIDE, center_crop=False, random_flip=False, name="x")
