"""Smooth random textures from whole-number hashes: the same bits on every device, unlike a hash made of sines.

Everything is a pure function of coordinates ``(b, n)`` and one seed an image ``(b, 1)``, so an image does not depend
on the batch it is rendered in. Smooth noise uses only floor, plus and times, which round the same way everywhere.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Color = Sequence[float] | Tensor

# Odd numbers with well spread bits; below 2**31, so that they are 32-bit signed numbers as they are.
_STEP_X, _STEP_Y, _STEP_SEED = 0x27D4EB2D, 0x165667B1, 0x1B873593
_ROUND_1, _ROUND_2 = 0x2C1B3C6D, 0x297A2D39
_LACUNARITY = 2.03  # not 2: lattice points of the octaves shall not coincide


def smoothstep(a: float | Tensor, b: float | Tensor, x: Tensor) -> Tensor:
    """0 where ``x`` is beyond ``a``, 1 beyond ``b``, smooth between; ``a`` may be the larger."""
    t = ((x - a) / (b - a)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Color, b: Color, t: Tensor) -> Tensor:
    """Colours from ``a`` (``t`` = 0) to ``b`` (``t`` = 1).

    Args:
        a, b: ``(3,)`` numbers or ``(..., 3)`` tensors.
        t: ``(...)``; the result is ``(..., 3)``.
    """
    weight = t.unsqueeze(-1)
    first, second = (torch.as_tensor(c, dtype=t.dtype, device=t.device) for c in (a, b))
    return first + (second - first) * weight


def _scramble(h: Tensor) -> Tensor:
    """Well mixed bits of 32-bit numbers (multiply, xor, shift; overflow wraps around), as floats in 0 to 1."""
    h = (h ^ ((h >> 15) & 0x1FFFF)) * _ROUND_1
    h = (h ^ ((h >> 12) & 0xFFFFF)) * _ROUND_2
    h = h ^ ((h >> 15) & 0x1FFFF)
    return ((h >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def _seed_bits(seed: Tensor) -> Tensor:
    """The seeds folded to 32 bits and spread, so that neighbouring seeds are unlike."""
    folded = (seed ^ (seed >> 32)) & 0xFFFFFFFF
    folded = torch.where(folded > 0x7FFFFFFF, folded - 0x100000000, folded).to(torch.int32)
    for factor in (_STEP_SEED, _ROUND_1, _ROUND_2):
        folded = folded * factor
        folded = folded ^ ((folded >> 16) & 0xFFFF)
    return folded


def hashed(x: Tensor, y: Tensor | int, seed: Tensor) -> Tensor:
    """A random number in 0 to 1 (24 bits) of each lattice point: ``x`` and ``y`` hold whole numbers."""
    row = y * _STEP_Y if isinstance(y, int) else y.to(torch.int32) * _STEP_Y
    return _scramble(x.to(torch.int32) * _STEP_X + row + _seed_bits(seed))


def value_noise(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Random numbers at whole coordinates, smooth between them: 0 to 1, mean a half, one bump about every two units."""
    column, row = torch.floor(x), torch.floor(y)
    fx, fy = x - column, y - row
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    corner = column.to(torch.int32) * _STEP_X + row.to(torch.int32) * _STEP_Y + _seed_bits(seed)
    a, b = _scramble(corner), _scramble(corner + _STEP_X)
    c, d = _scramble(corner + _STEP_Y), _scramble(corner + (_STEP_X + _STEP_Y))
    near = a + (b - a) * fx
    far = c + (d - c) * fx
    return near + (far - near) * fy


def line_noise(x: Tensor, seed: Tensor, octaves: int = 1) -> Tensor:
    """Noise along one axis, 0 to 1: outlines of hills, wobbling edges."""
    bits = _seed_bits(seed)
    total, weight, sum_of_weights = torch.zeros_like(x), 0.5, 0.0
    for octave in range(octaves):
        left = torch.floor(x)
        f = x - left
        f = f * f * (3 - 2 * f)
        base = left.to(torch.int32) * _STEP_X + bits + octave * _STEP_Y
        a, b = _scramble(base), _scramble(base + _STEP_X)
        total = total + weight * (a + (b - a) * f)
        x, weight, sum_of_weights = x * _LACUNARITY, weight * 0.5, sum_of_weights + weight
    return total / sum_of_weights


def fbm(x: Tensor, y: Tensor, seed: Tensor, octaves: int = 3, blur: Tensor | None = None) -> Tensor:
    """Noise of several sizes added up (each half as large and half as strong): 0 to 1, mean a half.

    Args:
        blur: how much of ``x`` or ``y`` one pixel covers, broadcasting over the points. Octaves finer than pixels
            fade to their mean instead of flickering.
    """
    total, weight, sum_of_weights = torch.zeros_like(x), 0.5, 0.0
    for octave in range(octaves):
        wave = value_noise(x, y, seed + octave) - 0.5
        if blur is not None:
            wave = wave * smoothstep(0.9, 0.25, blur * _LACUNARITY**octave)
        total = total + weight * wave
        x, y, weight, sum_of_weights = x * _LACUNARITY, y * _LACUNARITY, weight * 0.5, sum_of_weights + weight
    return total / sum_of_weights + 0.5


def spots(x: Tensor, y: Tensor, seed: Tensor, spread: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """One spot in each unit cell, in the middle part as wide as ``spread``: where the point lies from it
    ``(dx, dy)``, and the cell's own random number."""
    column, row = torch.floor(x), torch.floor(y)
    corner = column.to(torch.int32) * _STEP_X + row.to(torch.int32) * _STEP_Y + _seed_bits(seed)
    at_x = 0.5 + spread * (_scramble(corner) - 0.5)
    at_y = 0.5 + spread * (_scramble(corner ^ 0x5BD1E995) - 0.5)
    return x - column - at_x, y - row - at_y, _scramble(corner ^ 0x3C6EF372)


def cells(x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the spot of the point's unit cell, and the cell's random number: stars, bubbles, pebbles."""
    dx, dy, number = spots(x, y, seed)
    return torch.sqrt(dx * dx + dy * dy), number
