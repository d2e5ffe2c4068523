"""What is done to a picture before the eye learns from it, so that it looks at the toy and not at the picture.

No mirroring: a toy and its mirror image are two toys (an emblem on the left, an odd arm on the right).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

IGNORED = -100  # a label that costs nothing, as in torch's cross entropy
PHOTO = 0  # index of the style

_GRID = 8  # a toy is painted over with colours averaged on a grid this coarse
_HALO = 7  # pixels of a toy's contact shadow that go with it
_SHIFT, _ZOOM = 0.12, 0.12  # in half sides; as a factor
_BRIGHT, _CONTRAST, _WARM, _NOISE = 0.08, 0.10, 0.025, 0.02


@dataclass(frozen=True)
class Dice:
    """The randomness of one batch, thrown outside the compiled function."""

    numbers: Tensor  # (n, 20) in 0 to 1
    partner: Tensor  # (n,) whose background a picture gets
    noise: Tensor  # (n, 3, s, s) normal

    @staticmethod
    def throw(count: int, size: int, device: str, generator: Generator) -> "Dice":
        """Dice for ``count`` pictures of side ``size``."""
        return Dice(
            torch.rand(count, 20, generator=generator, device=device),
            torch.randperm(count, generator=generator, device=device),
            torch.randn(count, 3, size, size, generator=generator, device=device),
        )


def augment(
    images: Tensor, masks: Tensor, style: Tensor, dice: Dice, share: float, decoys: int
) -> tuple[Tensor, Tensor]:
    """Other backgrounds, framing, light, sharpness and noise; and decoys in place of the last pictures.

    Args:
        images, masks: ``(n, 3, s, s)`` and ``(n, 1, s, s)`` in 0 to 1.
        style: ``(n,)``; only photos get another background.
        share: of the photos that get another background.
        decoys: how many of the last pictures become pictures without a toy (see ``decoy_pictures``); those that are
            outlines are outlines of the first pictures' toys.

    Returns:
        Pictures as they came, in size and range; ``(n,)`` booleans: which have another background.
    """
    numbers = dice.numbers
    emptied = without_toy(images, masks)[dice.partner]
    plain = gradients(numbers[:, :7], images.shape[-1])
    background = torch.where(_column(numbers[:, 7] < 0.6), emptied, plain)
    replaced = (numbers[:, 8] < share) & (style == PHOTO)
    images = torch.where(_column(replaced), images * masks + background * (1 - masks), images)
    if decoys:
        first, last = slice(decoys), slice(-decoys, None)
        outlines = (images[first], masks[first])
        fakes = decoy_pictures(*outlines, emptied[last], plain[last], dice.noise[last], numbers[last, 9])
        images = torch.cat([images[:-decoys], fakes])
    images = _framed(images, numbers[:, 10:13])
    images = _softened(images, numbers[:, 13])
    return _photometric(images, numbers[:, 14:20], dice.noise), replaced


def without_toy(images: Tensor, masks: Tensor) -> Tensor:
    """The pictures with their toys painted over by what is beside them."""
    near = F.max_pool2d(masks, 2 * _HALO + 1, 1, _HALO)
    size = images.shape[-2:]
    cell = size[0] // _GRID
    known = F.avg_pool2d(1 - near, cell)
    sums = F.avg_pool2d(images * (1 - near), cell)
    overall = sums.mean((2, 3), keepdim=True) / known.mean((2, 3), keepdim=True).clamp(min=1e-3)
    for _ in range(3):  # grow into the cells that are toy throughout
        spread = F.avg_pool2d(F.pad(torch.cat([sums, known], 1), (1,) * 4), 3, 1)
        empty = known < 0.05
        sums, known = torch.where(empty, spread[:, :3], sums), torch.where(empty, spread[:, 3:], known)
    coarse = torch.where(known < 0.005, overall, sums / known.clamp(min=1e-3))
    fill = F.interpolate(coarse, size, mode="bilinear", align_corners=False).clamp(0, 1)
    # What stands half a picture aside is sharp and at the right height; the toy's middle is often covered by it.
    beside, hidden = images.roll(size[1] // 2, 3), near.roll(size[1] // 2, 3)
    return images * (1 - near) + (beside * (1 - hidden) + fill * hidden) * near


def gradients(numbers: Tensor, size: int) -> Tensor:
    """``(n, 3, size, size)`` pictures that run from one colour to another, by seven numbers each."""
    angle = numbers[:, 6] * 6.2832
    steps = torch.linspace(-0.5, 0.5, size, device=numbers.device)
    along = _column(angle.cos()) * steps[None, None, :, None] + _column(angle.sin()) * steps[None, None, None, :]
    first, second = numbers[:, :3, None, None], numbers[:, 3:6, None, None]
    # Half of them hardly change, like a wall.
    second = torch.where(_column(numbers[:, 0] < 0.5), first + (second - first) * 0.2, second)
    return first + (second - first) * (along + 0.5).clamp(0, 1)


def decoy_pictures(
    images: Tensor, masks: Tensor, emptied: Tensor, plain: Tensor, noise: Tensor, kind: Tensor
) -> Tensor:
    """Pictures without a toy: half are empty scenes, the rest flat colours, noise and outlines of toys."""
    mean = (images * masks).sum((2, 3), keepdim=True) / masks.sum((2, 3), keepdim=True).clamp(min=1)
    outline = mean * masks + emptied * (1 - masks)
    strength = _column(0.1 + 4 * (kind - 0.65))  # of those that are noise: 0.1 to 0.7
    noisy = (plain + noise * strength).clamp(0, 1)
    fakes = torch.where(_column(kind < 0.5), emptied, torch.where(_column(kind < 0.65), plain, noisy))
    return torch.where(_column(is_outline(kind)), outline, fakes)


def is_outline(kind: Tensor) -> Tensor:
    """Which decoys are outlines: no toy, but their class is not denied."""
    return kind >= 0.8


def decoy_kinds(dice: Dice, decoys: int) -> Tensor:
    """``(decoys,)``: what the last pictures of a batch became."""
    return dice.numbers[len(dice.numbers) - decoys :, 9]


def _framed(images: Tensor, numbers: Tensor) -> Tensor:
    """Shifted and zoomed a little, the border mirrored."""
    spread = 2 * numbers - 1
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + _ZOOM * spread[:, 0]
    theta[:, :, 2] = _SHIFT * spread[:, 1:]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _softened(images: Tensor, number: Tensor) -> Tensor:
    """A third as they are, the others blurred by up to about a pixel."""
    once = blurred(images)
    amount = _column(((number - 0.33) * 3).clamp(0, 2))
    softer = once + (blurred(once) - once) * (amount - 1).clamp(0, 1)
    return images + (softer - images) * amount.clamp(0, 1)


def blurred(images: Tensor) -> Tensor:
    """A binomial blur of 3 by 3 pixels."""
    padded = F.pad(images, (1,) * 4, mode="replicate")
    across = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 4


def _photometric(images: Tensor, numbers: Tensor, noise: Tensor) -> Tensor:
    spread = 2 * numbers - 1
    images = images + _column(_BRIGHT * spread[:, 0])
    images = (images - 0.5) * _column(1 + _CONTRAST * spread[:, 1]) + 0.5
    images = images * (1 + _WARM * spread[:, 2:5, None, None])
    return (images + noise * _column(_NOISE * numbers[:, 5])).clamp(0, 1)


def _column(values: Tensor) -> Tensor:
    """``(n,)`` to ``(n, 1, 1, 1)``."""
    return values[:, None, None, None]
