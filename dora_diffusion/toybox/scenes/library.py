"""A library: shelves of books, a wooden floor, often a rug."""

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import fbm, hashed, mix, smoothstep
from dora_diffusion.toybox.scenes.scene import WALL_Z, Luck, Scene, pick
from dora_diffusion.toybox.scenes.shapes import below, fraction, line, pixel_depth, planks, wood_tones

_BOOKS = (
    (0.70, 0.16, 0.16), (0.16, 0.30, 0.56), (0.14, 0.44, 0.34), (0.86, 0.64, 0.24), (0.48, 0.20, 0.40),
    (0.90, 0.86, 0.74), (0.22, 0.52, 0.60), (0.82, 0.40, 0.20), (0.34, 0.24, 0.20), (0.60, 0.66, 0.40),
)  # fmt: skip


def _books(x: Tensor, up: Tensor, row: Tensor, seed: Tensor, luck: Luck) -> tuple[Tensor, Tensor]:
    """Colour and mask of the books of a shelf; ``up`` 0 to 1 from its board to the next."""
    at = x * luck.number(30, 6.8, 9.2) + 17 * row
    cell = torch.floor(at)
    own = cell + 0.6 * hashed(cell, row, seed)  # books meet at a random place of each cell
    after = (at >= own).float()
    book = cell - 1 + after
    left = book + 0.6 * hashed(book, row, seed)
    right = book + 1 + 0.6 * hashed(book + 1, row, seed)
    number = hashed(book, row, seed + 1)
    run = hashed(torch.floor(book / 3), row, seed + 2)  # volumes of one series stand together
    series = run < 0.35
    tint = torch.where(series, run / 0.35, fraction(number * 17))
    tint = fraction(tint + luck.number(31))
    height = torch.where(series, 0.62 + 0.6 * run, 0.56 + 0.34 * fraction(number * 5))
    across = (at - left) / (right - left)
    round_ = 1 - 0.45 * (2 * across - 1).abs() ** 3
    color = pick(_BOOKS, tint) * (round_ * (0.9 + 0.2 * fraction(number * 3))).unsqueeze(-1)
    bands = line(up - height * 0.80, 0.045) + line(up - height * 0.22, 0.045)
    gold = pick(((0.95, 0.80, 0.44), (0.95, 0.92, 0.84)), fraction(number * 13))
    color = mix(color, gold, bands.clamp(0, 1) * (fraction(number * 29) < 0.40) * 0.7)
    there = (fraction(number * 37) > 0.07).float() + series.float()
    return color, below(up, height, 0.02) * there.clamp(0, 1)


def _library_back(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    dark, light = wood_tones(luck, 20)
    wood = mix(dark, light, torch.full_like(x, 0.35))
    shelf = luck.number(21, 0.34, 0.42)
    at = (y - 0.12) / shelf
    row, up = torch.floor(at), fraction(at)
    inside = dark * 0.46
    books, mask = _books(x, (up - 0.10) / 0.90, row, seed, luck)
    color = mix(inside, books, mask)
    color = mix(color * 0.55, color, smoothstep(1.02, 0.72, up))  # the board above throws a shadow
    color = mix(color, wood, smoothstep(0.115, 0.085, up))
    color = mix(color, light, line(up - 0.09, 0.018) * 0.6)
    post = (fraction(x / 1.35 + luck.number(22)) - 0.5).abs() * 1.35
    color = mix(color, wood, smoothstep(0.056, 0.044, post))
    color = mix(color, light, line(post - 0.035, 0.012) * 0.4)
    return mix(color, wood * 0.9, below(y, 0.12, 0.008))


def _library_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    dark, light = wood_tones(luck, 1)
    floor = planks(x, z, seed, 0.36, dark, light, dark * 0.6)
    base = luck.color(2, (0.16, 0.34, 0.46), (0.16, 0.42, 0.36), (0.36, 0.26, 0.46), (0.24, 0.30, 0.54))
    cream = luck.color(3, (0.94, 0.88, 0.72), (0.92, 0.78, 0.50))
    far = torch.sqrt((x / luck.number(4, 1.0, 1.3)) ** 2 + ((z - 0.05) / luck.number(5, 0.78, 0.92)) ** 2)
    square = torch.maximum(x.abs() / 1.15, (z - 0.05).abs() / 0.82)
    edge = torch.where(luck.yes(6, 0.5) > 0, far, square)
    rug = base * (0.85 + 0.3 * fbm(x * 3, z * 2, seed + 3, 2, blur * 2)).unsqueeze(-1)
    rug = mix(rug, cream, (line(edge - 0.90, 0.045) + line(edge - 0.68, 0.028) + line(edge - 0.30, 0.028)).clamp(0, 1))
    rug = mix(rug, base * 1.5, smoothstep(0.33, 0.30, edge) * 0.5)
    floor = mix(floor * 0.66, floor, smoothstep(1.0, 1.10, edge))
    color = mix(floor, rug, smoothstep(1.008, 0.992, edge) * luck.yes(7, 0.75))
    return mix(color, color * 0.55, smoothstep(0.20, 0.0, z - WALL_Z))


LIBRARY = Scene(
    _library_ground,
    _library_back,
    key_color=(1.0, 0.90, 0.74),
    key_strength=0.80,
    sky=(0.44, 0.40, 0.36),
    bounce=(0.30, 0.22, 0.16),
    wall=True,
)
