"""Far and rare places: the moon, the bottom of the sea, a lake at sunset."""

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import cells, fbm, hashed, line_noise, mix, smoothstep, spots
from dora_diffusion.toybox.scenes.scene import Luck, Scene, pick
from dora_diffusion.toybox.scenes.shapes import (
    below,
    disc,
    fraction,
    from_camera,
    glow,
    line,
    pines,
    pixel_depth,
    ridge,
)


def _craters(x: Tensor, z: Tensor, seed: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """Shadowed hollows and lit rims of one size of craters."""
    dx, dz, number = spots(x / size, z / size, seed)
    far = torch.sqrt(dx * dx + dz * dz)
    radius = 0.12 + 0.13 * number
    there = (number > 0.25).float()
    side = (0.5 + 0.9 * (dx + dz) / (far + 0.1)).clamp(0, 1)
    hollow = smoothstep(radius, radius * 0.7, far) * (0.45 + 0.55 * side) * there
    rim = line(far - radius * 1.08, 0.05) * (1 - 0.7 * side) * there
    return hollow, rim


def _moon_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    tint = luck.color(1, (0.70, 0.70, 0.74), (0.74, 0.72, 0.70), (0.66, 0.69, 0.75))
    dust = fbm(x * 1.7, z * 1.7, seed, 3, blur * 1.7)
    color = tint * (0.66 + 0.42 * dust).unsqueeze(-1)
    for layer, size in enumerate((0.75, 1.9)):
        hollow, rim = _craters(x + 0.37, z, seed + 3 + layer, size)
        clear = smoothstep(0.9, 0.3, blur / size * 1.6)
        color = mix(color, tint * 0.40, hollow * clear * 0.8)
        color = mix(color, tint * 1.22, rim * clear * 0.8)
    return color


def _planet(u: Tensor, v: Tensor, color: Tensor, seed: Tensor, luck: Luck) -> Tensor:
    at_u, at_v, radius = (
        luck.side(20) * luck.number(21, 0.08, 0.28),
        luck.number(22, 0.10, 0.20),
        luck.number(23, 0.055, 0.085),
    )
    x, y = (u - at_u) / radius, (v - at_v) / radius
    land = fbm(x * 1.3 + 9, y * 1.3, seed + 8, 3)
    clouds = fbm(x * 1.2, y * 2.6 + 5, seed + 9, 3)
    earth = mix((0.16, 0.44, 0.86), (0.34, 0.66, 0.34), smoothstep(0.50, 0.56, land))
    earth = mix(earth, (1.0, 1.0, 1.0), smoothstep(0.54, 0.68, clouds))
    lit = smoothstep(-0.75, 0.65, x * luck.side(24) * 0.7 + y * 0.6)
    halo = torch.exp(-((torch.sqrt(x * x + y * y) - 1).clamp(min=0) / 0.22))
    color = color + (halo * lit * 0.5).unsqueeze(-1) * torch.tensor((0.35, 0.6, 1.0), device=u.device)
    return mix(color, earth * (0.12 + 0.88 * lit).unsqueeze(-1), disc(x, y, 0.0, 0.0, 1.0, 0.05))


def _moon_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    color = mix((0.05, 0.05, 0.11), (0.02, 0.02, 0.05), (v * 3).clamp(0, 1))
    haze = fbm(u * 3 + v * 2, v * 5 - u, seed + 1, 3)
    color = mix(
        color,
        luck.color(2, (0.30, 0.22, 0.52), (0.14, 0.28, 0.52), (0.38, 0.20, 0.40)),
        smoothstep(0.45, 0.85, haze) * 0.7,
    )
    for layer, frequency in enumerate((13.0, 22.0)):
        far, number = cells(u * frequency, v * frequency, seed + 2 + layer)
        star = smoothstep(0.15, 0.02, far) * (number > 0.5) * (0.55 + 0.45 * number)
        color = mix(color, pick(((1.0, 1.0, 1.0), (1.0, 0.93, 0.80), (0.80, 0.88, 1.0)), fraction(number * 31)), star)
    color = _planet(u, v, color, seed, luck)
    top = ridge(u, seed + 5, 2.6, -0.01, 0.075)
    lit = smoothstep(-0.008, 0.010, ridge(u + 0.03, seed + 5, 2.6, -0.01, 0.075) - top)
    tint = luck.color(1, (0.70, 0.70, 0.74), (0.74, 0.72, 0.70), (0.66, 0.69, 0.75))
    return mix(color, mix(tint * 0.36, tint * 0.86, lit), below(v, top))


def _net(x: Tensor, y: Tensor, seed: Tensor, blur: Tensor) -> Tensor:
    """Bright wobbling lines of light, as waves throw them on the ground."""
    wave = fbm(x, y, seed, 2, blur)
    return torch.exp(-(wave - 0.5).abs() * 22)


def _underwater_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    sand = luck.color(1, (0.58, 0.84, 0.82), (0.70, 0.86, 0.76), (0.46, 0.76, 0.84))
    dunes = fbm(x * 1.4, z * 1.9, seed, 3, blur * 1.9)
    color = sand * (0.70 + 0.42 * dunes).unsqueeze(-1)
    light = 0.6 * _net(x * 1.5, z * 1.5, seed + 2, blur * 1.5) + 0.5 * _net(x * 2.1 + 5, z * 2.1, seed + 4, blur * 2.1)
    color = mix(
        color, (0.93, 1.0, 0.97), (light * smoothstep(5.0, 0.5, distance)).clamp(0, 1) * luck.number(2, 0.45, 0.8)
    )
    dx, dz, number = spots(x * 1.7, z * 1.0, seed + 6)
    stone = smoothstep(0.02, -0.02, torch.sqrt(dx * dx + dz * dz) - 0.09 - 0.06 * number) * (fraction(number * 9) < 0.3)
    coral = pick(
        ((0.96, 0.52, 0.46), (0.90, 0.64, 0.80), (0.46, 0.58, 0.60), (0.98, 0.78, 0.48)), fraction(number * 57)
    )
    return mix(
        color, coral * (0.8 + 1.6 * dz).clamp(0.6, 1.1).unsqueeze(-1), stone * smoothstep(5.0, 2.0, distance) * 0.85
    )


def _weeds(u: Tensor, v: Tensor, seed: Tensor, frequency: float) -> Tensor:
    x = u * frequency
    column = torch.floor(x)
    number = hashed(column, 1, seed)
    height = 0.06 + 0.20 * number
    sway = 0.12 * torch.sin(v * 30 + number * 40)
    half = 0.17 * (1 - (v / height).clamp(0, 1) ** 2)
    return (
        smoothstep(0.05, -0.05, (fraction(x) - 0.5 + sway).abs() - half)
        * below(v, height, 0.01)
        * (fraction(number * 17) < 0.62)
    )


def _fishes(u: Tensor, v: Tensor, seed: Tensor, luck: Luck, color: Tensor) -> Tensor:
    way = luck.side(30)
    dx, dy, number = spots(u * 4.6 + 0.5, v * 8, seed + 20)
    x, y = dx / 0.23 * way, dy / 0.22
    body = smoothstep(1.08, 0.92, torch.sqrt(x * x + y * y))
    tail = smoothstep(0.10, -0.10, y.abs() - (x.abs() - 0.8).clamp(min=0) * 1.4) * (x < -0.8) * (x > -1.55)
    there = (fraction(number * 13) < luck.number(31, 0.05, 0.5)) * smoothstep(0.07, 0.10, v)
    paint = pick(((1.0, 0.62, 0.20), (1.0, 0.86, 0.30), (0.98, 0.50, 0.44), (0.90, 0.94, 1.0)), fraction(number * 29))
    paint = mix(paint, (1.0, 1.0, 1.0), line(x - 0.1, 0.2) * 0.7)
    return mix(color, paint, torch.maximum(body, tail) * there * 0.9)


def _underwater_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    deep = luck.color(10, (0.06, 0.50, 0.74), (0.05, 0.40, 0.70), (0.08, 0.56, 0.68))
    color = mix(
        deep, luck.color(11, (0.48, 0.88, 0.95), (0.40, 0.80, 0.95), (0.56, 0.92, 0.88)), (v * 3.2).clamp(0, 1) ** 1.2
    )
    color = mix(
        color, deep * 0.80, below(v, ridge(u, seed + 1, 2.4, 0.0, 0.13), 0.02) * smoothstep(-0.02, 0.05, v) * 0.8
    )
    rays = line_noise((u - luck.number(12, -0.3, 0.3)) / (0.75 - v) * 7 + 50, seed + 2, 2)
    color = mix(color, (0.82, 0.98, 1.0), smoothstep(0.5, 0.85, rays) * (0.25 + v * 2.2).clamp(0, 0.7))
    weed = luck.color(13, (0.06, 0.52, 0.42), (0.10, 0.56, 0.36), (0.30, 0.40, 0.52))
    color = mix(color, mix(weed, deep, torch.full_like(u, 0.45)), _weeds(u + 0.2, v, seed + 3, 11.0))
    color = mix(color, weed, _weeds(u, v * 0.8, seed + 4, 7.0))
    color = _fishes(u, v, seed, luck, color)
    far, number = cells(u * 9, v * 9, seed + 6)
    radius = 0.10 + 0.14 * number
    bubble = line(far - radius, 0.045) + 0.25 * smoothstep(radius, radius - 0.05, far)
    return mix(color, (0.90, 0.99, 1.0), bubble * (fraction(number * 19) < 0.28) * 0.85)


def _sun(luck: Luck) -> tuple[Tensor, Tensor]:
    return luck.number(12, -0.20, 0.20), luck.number(13, 0.05, 0.13)


def _dusk(luck: Luck) -> tuple[Tensor, Tensor, Tensor]:
    """Colours of the evening sky: at the horizon, above it, high up."""
    return (
        luck.color(14, (1.0, 0.74, 0.34), (1.0, 0.66, 0.40), (1.0, 0.82, 0.46), (1.0, 0.76, 0.64)),
        luck.color(15, (0.98, 0.56, 0.36), (0.96, 0.44, 0.42), (0.92, 0.40, 0.58), (0.80, 0.46, 0.70)),
        luck.color(16, (0.46, 0.30, 0.62), (0.26, 0.32, 0.66), (0.62, 0.32, 0.54)),
    )


def _sunset_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    near, middle, high = _dusk(luck)
    away = from_camera(z)
    slope = x / away
    wave = fbm(slope * 5, torch.log(away) * 13, seed + 1, 2)
    lake = mix(mix(high, middle, smoothstep(2.0, 7.0, away)), near, smoothstep(5.0, 16.0, away) * 0.8)
    lake = lake * (0.74 + 0.4 * wave).unsqueeze(-1)
    column = torch.exp(-(((slope - _sun(luck)[0]) / (0.05 + 0.22 / away)) ** 2)) * smoothstep(0.28, 0.62, wave)
    lake = mix(lake, (1.0, 0.88, 0.56), column * 0.95)
    shore = (
        luck.number(3, -1.15, -0.8)
        + x * luck.number(4, -0.2, 0.2)
        + 0.25 * (line_noise(x * 1.4 + 30, seed + 2, 2) - 0.5)
    )
    earth = luck.color(5, (0.58, 0.42, 0.32), (0.50, 0.44, 0.26), (0.62, 0.46, 0.42))
    soil = fbm(x * 2.4, z * 2.4, seed + 3, 3, blur * 2.4)
    land = earth * (0.66 + 0.55 * soil).unsqueeze(-1)
    land = mix(land, earth * 0.62, smoothstep(0.32, 0.0, z - shore) * 0.8)
    color = mix(land, lake, smoothstep(0.03, -0.03, z - shore))
    return mix(color, (1.0, 0.82, 0.64), line(z - shore + 0.03, 0.035) * 0.7)


def _sunset_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    near, middle, high = _dusk(luck)
    color = mix(mix(near, middle, smoothstep(0.0, 0.16, v)), high, smoothstep(0.10, 0.34, v))
    streaks = fbm(u * 1.8, v * 13, seed + 4, 3)
    color = mix(
        color,
        mix((1.0, 0.80, 0.58), middle * 0.85, smoothstep(0.05, 0.25, v)),
        smoothstep(0.50, 0.70, streaks) * luck.number(17, 0.2, 0.85),
    )
    sun_u, sun_v = _sun(luck)
    color = mix(color, (1.0, 0.88, 0.58), glow(u, v, sun_u, sun_v, 0.085) * 0.85)
    color = mix(color, (1.0, 0.97, 0.82), disc(u, v, sun_u, sun_v, luck.number(18, 0.036, 0.055)))
    far = mix(middle, (0.42, 0.28, 0.50), torch.full_like(u, 0.6))
    color = mix(color, far, below(v, ridge(u, seed + 5, 2.0, 0.0, luck.number(19, 0.05, 0.13))))
    wood, _ = pines(u, v, seed + 6, 13.0, 0.055, 0.0)
    shore = torch.maximum(below(v, ridge(u, seed + 7, 2.2, -0.015, 0.03)), wood * luck.yes(20, 0.6))
    return mix(color, (0.26, 0.16, 0.30), shore * 0.95)


MOON = Scene(
    _moon_ground,
    _moon_back,
    key_color=(1.0, 1.0, 1.0),
    key_strength=1.1,
    sky=(0.17, 0.17, 0.21),
    bounce=(0.16, 0.16, 0.17),
)
UNDERWATER = Scene(
    _underwater_ground,
    _underwater_back,
    key_color=(0.92, 1.0, 1.0),
    key_strength=0.85,
    sky=(0.28, 0.50, 0.60),
    bounce=(0.18, 0.36, 0.40),
    haze_color=(0.05, 0.32, 0.53),
    haze=0.14,
)
SUNSET = Scene(
    _sunset_ground,
    _sunset_back,
    key_color=(1.0, 0.66, 0.40),
    key_strength=0.95,
    sky=(0.42, 0.33, 0.44),
    bounce=(0.30, 0.20, 0.18),
)
