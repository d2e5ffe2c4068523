"""Aspect-ratio buckets: their shapes, who belongs where, and an order that is a function of the sample's number."""

from collections import Counter
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dora_diffusion.config import DataConfig
from dora_diffusion.data.buckets import Order, automatic_buckets, cover, nearest
from dora_diffusion.data.draws import shuffled
from dora_diffusion.data.views import Photos, View
from dora_diffusion.errors import ConfigError


@pytest.mark.parametrize("resolution", [64, 128, 256, 512, 768, 1024])
def test_automatic_shapes_need_no_more_memory_than_the_square(resolution: int) -> None:
    shapes = automatic_buckets(resolution)
    assert len(set(shapes)) == len(shapes) and len(shapes) % 2 == 1
    assert shapes == [(width, height) for height, width in reversed(shapes)]  # each shape stands beside its turned one
    assert shapes[len(shapes) // 2] == (resolution, resolution)
    for height, width in shapes:
        assert 0.7 * resolution**2 < height * width <= resolution**2
        assert max(height, width) <= 2 * min(height, width)
        assert height % 8 == width % 8 == 0 and (resolution < 512 or height % 64 == width % 64 == 0)


def test_the_shapes_of_sdxl_are_among_them() -> None:
    known = [(896, 1152), (832, 1216), (768, 1344), (1024, 1024), (1152, 896), (1216, 832), (1344, 768)]
    assert set(known) <= set(automatic_buckets(1024))
    assert automatic_buckets(64) == [(80, 48), (72, 56), (64, 64), (56, 72), (48, 80)]


def test_shapes_are_written_as_in_diffusers() -> None:
    reference = pytest.importorskip("diffusers.training_utils").parse_buckets_string
    text = "672,1568;688,1504 ; 720, 1456"
    assert DataConfig(aspect_ratio_buckets=text).given_buckets() == reference(text)
    assert DataConfig(aspect_ratio_buckets="auto").given_buckets() is None


@pytest.mark.parametrize("text", ["", "512", "512,512,512", "512x512", "100,512", "16,64", "8192,64", "64,64;64,64"])
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="aspect_ratio_buckets"):
        DataConfig(aspect_ratio_buckets=text)


def test_a_photo_goes_where_its_proportions_are_nearest() -> None:
    shapes = [(64, 64), (48, 80), (80, 48)]
    sizes = [(100, 100), (100, 128), (100, 131), (131, 100), (30, 90)]  # 1.29 lies half way from 1 to 1.67
    assert [nearest(shapes, *size) for size in sizes] == [(64, 64), (64, 64), (48, 80), (80, 48), (48, 80)]


def test_covering_leaves_no_gap_and_one_side_exact() -> None:
    assert cover((48, 80), 100, 200) == (48, 96)
    assert cover((48, 80), 100, 100) == (80, 80)
    assert cover((80, 48), 101, 67) == (80, 53)


def test_one_bucket_is_the_plain_order() -> None:
    order = Order([range(5)], chunk=3, repeats=1, name="instance")
    assert [order.photo(7, n) for n in range(60)] == [shuffled(5, n, 7, "instance-order") for n in range(60)]


@pytest.mark.parametrize(("chunk", "repeats"), [(1, 1), (2, 1), (4, 1), (2, 3)])
def test_a_pass_has_its_chunks_and_a_chunk_has_one_bucket(chunk: int, repeats: int) -> None:
    members = [[0, 3, 4, 6, 7], [1], [2, 5]]
    order = Order(members, chunk=chunk, repeats=repeats, name="x")
    chunks = [ceil(len(photos) * repeats / chunk) for photos in members]
    schedules = []
    for whole in range(20):
        start = whole * sum(chunks) * chunk
        rows = [[start + k * chunk + place for place in range(chunk)] for k in range(sum(chunks))]
        buckets = [{order.bucket(0, sample) for sample in row} for row in rows]
        assert all(len(bucket) == 1 for bucket in buckets)
        schedules.append(tuple(min(bucket) for bucket in buckets))
        assert Counter(schedules[-1]) == dict(enumerate(chunks))
        assert all(order.photo(0, sample) in members[order.bucket(0, sample)] for row in rows for sample in row)
    assert len(set(schedules)) > 5  # the chunks come in another order each pass


def test_each_bucket_is_a_stream_that_goes_on() -> None:
    """Photos within a bucket come equally often: a pass over five photos, three at a time, ends in mid-chunk."""
    members = [[0, 1, 2, 3, 4], [5, 6]]
    order = Order(members, chunk=3, repeats=1, name="x")
    drawn = [order.photo(0, sample) for sample in range(3 * 3 * 40)]
    for photos in members:
        stream = [photo for photo in drawn if photo in photos]
        assert len(stream) > 3 * len(photos)
        for start in range(0, len(stream) - len(photos), len(photos)):
            assert sorted(stream[start : start + len(photos)]) == photos


def test_repeats_make_a_pass_longer() -> None:
    order = Order([range(4)], chunk=1, repeats=3, name="x")
    passes = [[order.photo(0, 12 * k + n) for n in range(12)] for k in range(10)]
    assert all(Counter(drawn) == dict.fromkeys(range(4), 3) for drawn in passes)
    assert any(sorted(drawn[:4]) != [0, 1, 2, 3] for drawn in passes)  # without repeats each four would be all four


def test_the_order_needs_no_sample_before_it() -> None:
    walked, fresh = (Order([[0, 2], [1, 3, 4]], chunk=2, repeats=1, name="x") for _ in range(2))
    before = [walked.photo(1, n) for n in range(80)]
    assert [fresh.photo(1, n) for n in reversed(range(80))] == before[::-1]
    assert [fresh.photo(2, n) for n in range(80)] != before


def numbered(path: Path, width: int, height: int) -> Path:
    """A photo in which every pixel tells its column and row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width)[None, :], np.arange(height)[:, None]
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def bucketed(tmp_path: Path) -> Photos:
    """A square photo, a wide one and a high one, each a little larger than its bucket on one side."""
    sizes = [(64, 70), (80, 50), (48, 83)]
    paths = [numbered(tmp_path / f"{k}.png", *size) for k, size in enumerate(sizes)]
    shapes = [(64, 64), (48, 80), (80, 48), (56, 72)]
    return Photos(paths, 64, center_crop=False, random_flip=True, name="instance", buckets=shapes, chunk=2, repeats=1)


def test_a_view_in_a_bucket_is_the_very_pixels(bucketed: Photos) -> None:
    assert bucketed.buckets == [(64, 64), (48, 80), (80, 48)]  # the one without photos is gone
    for view, (top, left), (height, width) in (
        (View(0, 0, 5, False), (5, 0), (64, 64)),
        (View(1, 0, 2, True), (2, 0), (48, 80)),
        (View(2, 0, 3, False), (3, 0), (80, 48)),
    ):
        pixels = ((bucketed.pixel_values(view) + 1) * 127.5).round()
        columns = torch.arange(left, left + width).expand(height, width)
        assert torch.equal(pixels[0], (columns.flip(1) if view.flip else columns).float())
        assert torch.equal(pixels[1], torch.arange(top, top + height)[:, None].expand(height, width).float())


def test_framing_knows_the_bucket(bucketed: Photos) -> None:
    assert bucketed.framing(View(1, 0, 2, False)) == (50, 80, 2, 0, 48, 80)
    assert bucketed.framing(View(2, 0, 3, True)) == (83, 48, 3, 0, 80, 48)
    # Half of a photo twice as wide as the square: resized to 64 x 128, of which columns 10 to 74 are seen.
    other = View(1, 10, 0, False, shape=(64, 64))
    assert bucketed.framing(other) == (50, 80, 0, 10, 64, 64)
    assert bucketed.framing(View(1, 10, 0, True, shape=(64, 64))) == (50, 80, 0, 102 - 64 - 10, 64, 64)


def test_samples_of_a_chunk_have_one_shape(bucketed: Photos) -> None:
    for chunk in range(30):
        shapes = {tuple(bucketed.pixel_values(bucketed.view(0, 2 * chunk + k)).shape) for k in range(2)}
        assert shapes == {(3, *bucketed.shape(0, 2 * chunk))}
    views = [bucketed.view(0, sample) for sample in range(200)]
    assert {view.photo for view in views} == {0, 1, 2} and {view.shape for view in views} == {None}
    assert {view.top for view in views if view.photo == 0} == set(range(7))


def test_views_are_fixed_where_no_crop_is_drawn(bucketed: Photos, tmp_path: Path) -> None:
    assert bucketed.fixed_views() is None
    how = {"center_crop": True, "random_flip": True, "name": "instance", "buckets": bucketed.buckets}
    centred = Photos(bucketed.paths, 64, **how)
    fixed = centred.fixed_views()
    assert fixed is not None and len(fixed) == 6
    assert set(fixed) == {centred.view(0, sample) for sample in range(60)}
    exact = numbered(tmp_path / "exact.png", 80, 48)
    only = Photos([exact], 64, center_crop=False, random_flip=False, name="instance", buckets=[(48, 80)])
    assert only.fixed_views() == [View(0, 0, 0, False)]


def test_class_images_take_the_shape_of_the_photos_beside_them(bucketed: Photos, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    paths = [numbered(tmp_path / "class" / f"{k}.png", 64, 64) for k in range(3)]
    images = Photos(paths, 64, center_crop=True, random_flip=False, name="class", like=bucketed)
    plain = Photos(paths, 64, center_crop=True, random_flip=False, name="class")
    seen = set()
    for sample in range(40):
        view, (height, width) = images.view(0, sample), bucketed.shape(0, sample)
        assert images.pixel_values(view).shape == (3, height, width)
        assert view.photo == plain.view(0, sample).photo  # their order is their own
        assert images.framing(view)[4:] == (height, width) and images.has_few_views(view)
        seen.add(view)
    assert {view.shape for view in seen} == {None, (48, 80), (80, 48)}
    fixed = images.fixed_views()
    assert fixed is not None and set(fixed) == seen and len(fixed) == 9  # three images in three shapes
    # 64 x 64 brought to 80 x 80, of which the rows 16 to 64 are the middle: row r shows 0.8 r - 0.1 or so.
    wide = View(0, 0, 16, False, shape=(48, 80))
    assert any((view.left, view.top, view.shape) == (0, 16, (48, 80)) for view in seen)
    rows = (images.pixel_values(wide)[1, :, 40] + 1) * 127.5
    torch.testing.assert_close(rows, 0.8 * (torch.arange(16, 64) + 0.5) - 0.5, rtol=0, atol=0.6)
