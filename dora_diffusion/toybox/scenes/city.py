"""A city at night: a wet street, a low wall, the skyline."""

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import fbm, hashed, mix, smoothstep, value_noise
from dora_diffusion.toybox.scenes.scene import WALL_Z, Luck, Scene, pick
from dora_diffusion.toybox.scenes.shapes import below, disc, fraction, from_camera, glow, line, pixel_depth

_WINDOWS = ((1.0, 0.84, 0.44), (1.0, 0.92, 0.66), (1.0, 0.74, 0.36), (0.70, 0.90, 1.0))


def _houses(u: Tensor, v: Tensor, seed: Tensor, frequency: float, tall: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A row of tall buildings: mask, mask of lit windows, a random number a window and one a building."""
    x = u * frequency
    column = torch.floor(x)
    number = hashed(column, 1, seed)
    height = tall * (0.35 + 0.65 * number)
    roof = height + 0.022 * smoothstep(0.22, 0.18, (fraction(x) - 0.5).abs()) * (number > 0.45)
    mask = below(v, roof, 0.003)
    across = fraction(x) * 5
    up = v * 27 + 0.4
    place = column * 5 + torch.floor(across)
    lamp = hashed(place, torch.floor(up), seed + 2)
    inside = smoothstep(0.36, 0.26, (fraction(across) - 0.5).abs()) * smoothstep(0.36, 0.26, (fraction(up) - 0.5).abs())
    window = (
        inside
        * (lamp > 0.42)
        * smoothstep(height - 0.008, height - 0.016, v)
        * smoothstep(0.5, 0.42, (fraction(x) - 0.5).abs())
    )
    return mask, window, lamp, number


def _skyline(u: Tensor, v: Tensor, seed: Tensor, luck: Luck) -> Tensor:
    low = luck.color(20, (0.52, 0.32, 0.62), (0.72, 0.38, 0.50), (0.26, 0.40, 0.66), (0.62, 0.42, 0.40))
    color = mix(low, luck.color(21, (0.07, 0.08, 0.26), (0.10, 0.06, 0.24), (0.04, 0.11, 0.25)), (v * 3.4).clamp(0, 1))
    moon_u, moon_v = luck.side(22) * luck.number(23, 0.05, 0.32), luck.number(24, 0.24, 0.33)
    color = mix(color, (0.95, 0.92, 0.82), glow(u, v, moon_u, moon_v, 0.035) * 0.5)
    color = mix(color, (1.0, 0.97, 0.86), disc(u, v, moon_u, moon_v, luck.number(25, 0.022, 0.034)))
    tall = luck.number(26, 0.8, 1.25)
    walls = ((0.26, 0.22, 0.44), (0.15, 0.15, 0.32), (0.10, 0.10, 0.22))
    for row, (frequency, height) in enumerate(((4.3, 0.27), (5.6, 0.19), (7.0, 0.115))):
        mask, window, lamp, number = _houses(u + 0.31 * row, v / tall, seed + 30 + 5 * row, frequency, height)
        wall = mix(walls[row], low, 0.10 + 0.16 * number)
        color = mix(color, wall, mask)
        color = mix(color, pick(_WINDOWS, fraction(lamp * 23)), window * mask * (0.62 + 0.16 * row))
    street = torch.exp(v.clamp(min=0) / -0.03)
    return mix(color, luck.color(4, (1.0, 0.66, 0.30), (1.0, 0.46, 0.62)), street * 0.55)


def _city_back(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Over a low wall along the street, the skyline: far away, so it is painted by slopes."""
    luck = Luck(seed)
    rim = luck.number(19, 0.09, 0.17)
    color = _skyline(x * 0.36, (y - rim) * 0.31, seed, luck)
    stone = luck.color(18, (0.42, 0.38, 0.50), (0.36, 0.38, 0.52), (0.46, 0.40, 0.44))
    color = mix(color, stone * (0.7 + 2.2 * y).clamp(0, 1).unsqueeze(-1), below(y, rim, 0.008))
    return mix(color, stone * 1.45, line(y - rim + 0.012, 0.016))


def _city_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    asphalt = luck.color(1, (0.27, 0.28, 0.37), (0.31, 0.28, 0.38), (0.24, 0.29, 0.38))
    color = asphalt * (0.74 + 0.5 * fbm(x * 1.8, z * 1.8, seed, 3, blur * 1.8)).unsqueeze(-1)
    # A wet street smears the lights towards the camera: streaks over the horizontal slope, not over the ground.
    away = from_camera(z)
    slope = x / away
    for layer, frequency in enumerate((9.0, 16.0)):
        across = slope * frequency + 0.3 * layer + 0.25 * value_noise(slope * 3, away * 1.5, seed + 6)
        number = hashed(torch.floor(across), layer, seed + 3)
        streak = smoothstep(0.42, 0.05, (fraction(across) - 0.5).abs()) * (number > 0.45)
        length = smoothstep(0.30, 0.75, value_noise(number * 50, torch.log(away) * 4, seed + 4))
        lamp = pick((*_WINDOWS, (1.0, 0.46, 0.62), (0.56, 0.60, 1.0)), fraction(number * 23))
        color = mix(color, lamp, streak * length * smoothstep(0.75, -1.2, z) * luck.number(6, 0.25, 0.65))
    middle = z + luck.number(7, 0.52, 0.70)
    dash = smoothstep(0.30, 0.27, (fraction(x * 0.9 + luck.number(8)) - 0.5).abs()) * smoothstep(
        0.065, 0.045, middle.abs()
    )
    zebra = smoothstep(0.26, 0.22, (fraction(x * 2.2 + luck.number(9)) - 0.5).abs()) * smoothstep(
        0.34, 0.31, middle.abs()
    )
    crossing = luck.yes(10, 0.4)
    color = mix(color, luck.one_of(11, (0.98, 0.88, 0.42), (0.92, 0.92, 0.90)), dash * (1 - crossing) * 0.9)
    color = mix(color, (0.90, 0.90, 0.92), zebra * crossing * 0.85)
    return mix(color, color * 0.6, smoothstep(0.16, 0.0, z - WALL_Z))


CITY = Scene(
    _city_ground,
    _city_back,
    key_color=(1.0, 0.86, 0.66),
    key_strength=0.82,
    sky=(0.32, 0.29, 0.46),
    bounce=(0.20, 0.16, 0.26),
    wall=True,
)
