"""Emblems: the little signs on toys that captions have no words for, each a region of the plane of radius about 1."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _nothing(x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(x, dtype=torch.bool)


def _star(x: Tensor, y: Tensor) -> Tensor:
    turn = torch.atan2(x, y) * (5 / (2 * math.pi)) + 0.5
    from_tip = ((turn - torch.floor(turn)) - 0.5).abs() * 2
    return torch.hypot(x, y) < 1.1 - 0.65 * from_tip


def _heart(x: Tensor, y: Tensor) -> Tensor:
    return (x * 1.05) ** 2 + (1.1 * y + 0.25 - 0.75 * (x * 1.05).abs().sqrt()) ** 2 < 0.85


def _ring(x: Tensor, y: Tensor) -> Tensor:
    radius = torch.hypot(x, y)
    return (radius < 1.0) & (radius > 0.5)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    return (torch.maximum(x.abs(), y.abs()) < 0.95) & (torch.minimum(x.abs(), y.abs()) < 0.34)


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return x.abs() * 1.35 + y.abs() < 1.05


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) < 1.0) & (torch.hypot(x - 0.5, y - 0.1) > 0.78)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() * 1.75 + y < 0.95) & (y > -0.75)


EMBLEMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": _nothing,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
    "diamond": _diamond,
    "crescent": _crescent,
    "triangle": _triangle,
}

OUTLINE = 1.3  # how much larger the outlined sign is


def emblem_regions(x: Tensor, y: Tensor, emblem: Tensor) -> tuple[Tensor, Tensor]:
    """Where the sign and its outline are.

    Args:
        x, y: ``(b, n)`` in radii of the sign.
        emblem: ``(b, 1)`` index into ``EMBLEMS``.

    Returns:
        Two ``(b, n)`` booleans: the sign; the sign with its outline.
    """
    sign = torch.zeros_like(x, dtype=torch.bool)
    outlined = torch.zeros_like(x, dtype=torch.bool)
    for number, inside in enumerate(EMBLEMS.values()):
        chosen = emblem == number
        sign = sign | (chosen & inside(x, y))
        # A hole keeps its size: the outline also runs inside it.
        outlined = outlined | (chosen & (inside(x / OUTLINE, y / OUTLINE) | inside(x, y)))
    return sign, outlined
