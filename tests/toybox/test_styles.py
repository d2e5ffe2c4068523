"""Contracts of the styles."""

import pytest
import torch
from torch import Tensor

from dora_diffusion.toybox.styles import stylise
from dora_diffusion.toybox.words import STYLES

DRAWN = [n for n, name in enumerate(STYLES) if name != "photo"]
PHOTO, PIXELS = list(STYLES).index("photo"), list(STYLES).index("pixel art")


def _pictures(count: int, side: int = 64) -> tuple[Tensor, Tensor]:
    """Coloured balls on a ground that brightens to the right, and their masks; the same at every size."""
    line = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    images, masks = [], []
    for i in range(count):
        mask = torch.sigmoid((0.3 - torch.sqrt((x - 0.5) ** 2 + (y - 0.45 - 0.02 * i) ** 2)) * 90)[None]
        ball = torch.tensor([0.85, 0.1 + 0.1 * i, 0.15])[:, None, None] * (1.1 - 0.5 * y)
        ground = torch.stack([0.5 + 0.4 * x, 0.6 + 0.2 * x, 0.7 + 0.0 * x])
        images.append((ground + (ball - ground) * mask).clamp(0, 1))
        masks.append(mask)
    return torch.stack(images), torch.stack(masks)


def _all(style: int, count: int) -> Tensor:
    return torch.full((count,), style)


def test_photos_are_untouched() -> None:
    images, masks = _pictures(3)
    assert torch.equal(stylise(images, masks, _all(PHOTO, 3), torch.arange(3)), images)


@pytest.mark.parametrize("style", DRAWN)
@pytest.mark.parametrize("side", [32, 64, 128, 192])
def test_drawings_keep_shape_and_range(style, side) -> None:
    images, masks = _pictures(2, side)
    before = images.clone()
    out = stylise(images, masks, _all(style, 2), torch.tensor([1, 2**40]))
    assert out.shape == images.shape and out.dtype == images.dtype
    assert torch.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    assert torch.equal(images, before), "the pictures given are not to be changed"
    assert (out - images).abs().mean() > 0.01


def test_batch_equals_one_by_one() -> None:
    images, masks = _pictures(8)
    style, seed = torch.arange(8) % len(STYLES), torch.arange(8) * 1_000_003
    together = stylise(images, masks, style, seed)
    for i in range(8):
        one = slice(i, i + 1)
        torch.testing.assert_close(
            stylise(images[one], masks[one], style[one], seed[one]), together[one], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("style", DRAWN)
def test_same_seed_same_drawing(style) -> None:
    images, masks = _pictures(2)
    seed = torch.tensor([4, 5])
    assert torch.equal(stylise(images, masks, _all(style, 2), seed), stylise(images, masks, _all(style, 2), seed))


@pytest.mark.parametrize("style", [s for s in DRAWN if s != PIXELS])
def test_every_drawing_has_its_own_hand(style) -> None:
    images, masks = _pictures(1)
    a, b = (stylise(images, masks, _all(style, 1), torch.tensor([s])) for s in (1, 2))
    assert (a - b).abs().mean() > 0.002


def test_pixel_art_is_32_blocks_of_flat_color() -> None:
    images, masks = _pictures(1, 128)
    out = stylise(images, masks, _all(PIXELS, 1), torch.tensor([0]))
    blocks = out.unfold(2, 4, 4).unfold(3, 4, 4)
    assert torch.equal(blocks.amax((-1, -2)), blocks.amin((-1, -2)))


@pytest.mark.parametrize("style", DRAWN)
def test_sizes_look_alike(style) -> None:
    """A drawing of a large picture, made small, is about the drawing of the small picture."""
    small, large = (stylise(*_pictures(1, side), _all(style, 1), torch.tensor([3])) for side in (128, 256))
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.03


@pytest.mark.parametrize("style", DRAWN)
def test_the_toy_keeps_its_hue(style) -> None:
    images, masks = _pictures(1, 128)
    out = stylise(images, masks, _all(style, 1), torch.tensor([3]))
    red, green, blue = ((out * masks).sum((2, 3)) / masks.sum((2, 3)))[0].tolist()
    assert red > green + 0.1 and red > blue + 0.1
