"""Wide places by day: beach, snow, meadow, desert."""

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import fbm, hashed, line_noise, mix, smoothstep, spots, value_noise
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
    sky,
)


def _starfish(x: Tensor, z: Tensor, luck: Luck) -> Tensor:
    dx, dz = x - luck.side(20) * luck.number(21, 0.45, 0.62), (z - luck.number(22, 0.1, 0.75)) * 0.75
    far = torch.sqrt(dx * dx + dz * dz)
    arms = torch.cos(5 * torch.atan2(dz, dx) + luck.number(23, 0, 6))
    return smoothstep(0.012, -0.012, far - 0.075 - 0.042 * arms) * luck.yes(24, 0.45)


def _beach_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    dry = luck.color(1, (0.96, 0.86, 0.66), (0.98, 0.90, 0.76), (0.95, 0.82, 0.60), (0.97, 0.86, 0.74))
    patches = fbm(x * 1.6, z * 1.6, seed, 3, blur * 1.6)
    ripple = 0.5 + 0.5 * torch.sin(z * 13 + x * luck.number(2, -3, 3) + 5 * patches)
    ripple = 0.5 + (ripple - 0.5) * smoothstep(0.45, 0.15, blur * 2)
    color = mix(dry * 0.88, dry * 1.02, (0.55 * patches + 0.45 * ripple).clamp(0, 1))
    dx, dz, number = spots(x * 2.4, z * 1.6, seed + 1)
    pebble = smoothstep(0.115, 0.075, torch.sqrt(dx * dx + dz * dz)) * (number < luck.number(3, 0.05, 0.3))
    color = mix(color, pick(((1.0, 0.97, 0.92), (0.98, 0.80, 0.72), (0.80, 0.70, 0.60)), fraction(number * 37)), pebble)
    color = mix(
        color, luck.one_of(25, (0.95, 0.42, 0.22), (0.93, 0.50, 0.48), (0.98, 0.66, 0.30)), _starfish(x, z, luck)
    )
    shore = (
        luck.number(4, -1.75, -0.95)
        + x * luck.number(5, -0.22, 0.22)
        + 0.22 * (line_noise(x * 1.1 + 30, seed, 2) - 0.5)
    )
    out = shore - z  # how far into the sea
    color = mix(color, dry * torch.tensor((0.74, 0.68, 0.62), device=x.device), smoothstep(-0.38, -0.06, out) * 0.85)
    shallow = luck.color(6, (0.40, 0.86, 0.84), (0.30, 0.80, 0.88), (0.42, 0.88, 0.76))
    deep = luck.color(7, (0.02, 0.42, 0.72), (0.03, 0.50, 0.72), (0.06, 0.36, 0.66))
    away = torch.log(from_camera(z))
    wave = value_noise(x / from_camera(z) * 5, away * 17, seed + 2)
    sea = mix(shallow, deep, smoothstep(0.1, 4.5, out))
    sea = mix(sea, (0.86, 0.97, 0.99), smoothstep(0.55, 0.95, wave) * 0.42)
    color = mix(color, sea, smoothstep(-0.02, 0.05, out))
    foam = line(out - 0.02, 0.06) + 0.7 * line(out - 0.36 - 0.12 * (wave - 0.5), 0.05 + 0.03 * wave)
    return mix(color, (1.0, 1.0, 1.0), foam.clamp(0, 0.95))


def _beach_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    low = luck.color(10, (0.82, 0.94, 0.99), (0.88, 0.95, 0.98), (0.99, 0.93, 0.84))
    high = luck.color(11, (0.22, 0.58, 0.94), (0.34, 0.68, 0.97), (0.16, 0.50, 0.88))
    color = sky(u, v, seed, low, high, luck.number(12, -0.2, 1.0), (1.0, 1.0, 1.0), (0.80, 0.87, 0.95))
    at = luck.side(13) * luck.number(14, 0.15, 0.5)
    hill = smoothstep(0.42, 0.0, (u - at).abs() / luck.number(15, 0.7, 1.4)) * luck.number(16, 0.03, 0.085)
    hill = hill * (0.75 + 0.5 * line_noise(u * 22 + 40, seed, 2)) - 0.002
    island = mix((0.34, 0.60, 0.42), (0.52, 0.74, 0.50), line_noise(u * 30 + v * 40, seed + 4))
    island = mix(island, (0.74, 0.88, 0.92), luck.number(17, 0.1, 0.6).expand_as(u))
    return mix(color, island, below(v, hill) * luck.yes(18, 0.6))


def _snow_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    drift = fbm(x * 1.1, z * 1.5, seed, 3, blur * 1.5)
    slope = fbm(x * 1.1 + 0.22, z * 1.5 + 0.12, seed, 3, blur * 1.5) - drift
    hollow = luck.color(1, (0.72, 0.82, 0.95), (0.78, 0.85, 0.96), (0.78, 0.80, 0.95))
    color = mix(hollow, (0.97, 0.985, 1.0), smoothstep(-0.10, 0.06, slope + 0.25 * (drift - 0.5)))
    dx, dz, number = spots(x * 3.2, z * 1.7, seed + 1)
    sparkle = smoothstep(0.10, 0.03, torch.sqrt(dx * dx + dz * dz)) * (number > 0.72) * smoothstep(4.0, 1.0, distance)
    return mix(color, (1.0, 1.0, 1.0), sparkle * 0.8)


def _snow_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    low = luck.color(10, (0.90, 0.94, 0.98), (0.99, 0.90, 0.86), (0.93, 0.92, 0.98))
    high = luck.color(11, (0.62, 0.77, 0.93), (0.50, 0.70, 0.93), (0.72, 0.74, 0.90))
    color = sky(u, v, seed, low, high, luck.number(12, 0.0, 0.8), (1.0, 1.0, 1.0), (0.84, 0.88, 0.95))
    peak = 0.10 * (1 - 2 * (fraction(u * luck.number(13, 0.9, 1.7) + luck.number(14)) - 0.5).abs()) * luck.yes(15, 0.6)
    peak = peak + ridge(u, seed + 3, 3.0, 0.01, 0.12)
    snowy = smoothstep(0.4, 0.6, value_noise(u * 26 + v * 30, v * 22, seed + 4) + 3 * (v - 0.1))
    color = mix(color, mix((0.66, 0.76, 0.89), (0.92, 0.95, 1.0), snowy), below(v, peak) * 0.9)
    needles = luck.color(16, (0.20, 0.42, 0.38), (0.16, 0.36, 0.40), (0.24, 0.44, 0.32))
    rows = ((9.0, 0.11, 0.55, 0.0), (5.6, 0.17, 0.22, 0.37), (3.6, 0.25, 0.0, 0.71))
    for row, (frequency, height, mist, shift) in enumerate(rows):
        mask, tier = pines(u + shift, v, seed + 7 + row, frequency, height, -0.01)
        tree = mix(needles, (0.95, 0.97, 1.0), smoothstep(0.55, 0.15, tier) * 0.75)
        column = hashed(torch.floor((u + shift) * frequency), 5, seed + row)
        color = mix(color, mix(tree, (0.88, 0.92, 0.97), torch.full_like(u, mist)), mask * (column < 0.8))
    color = mix(color, (0.93, 0.96, 1.0), below(v, ridge(u, seed + 5, 2.2, 0.0, 0.04, 2)))
    dx, dy, number = spots(u * 9, v * 9, seed + 6)
    flake = smoothstep(0.17, 0.06, torch.sqrt(dx * dx + dy * dy)) * (number < 0.55)
    return mix(color, (1.0, 1.0, 1.0), flake * luck.yes(17, 0.5) * 0.9)


def _grass_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    dark = luck.color(1, (0.24, 0.54, 0.14), (0.30, 0.56, 0.16), (0.18, 0.52, 0.22))
    light = luck.color(2, (0.58, 0.82, 0.26), (0.66, 0.84, 0.34), (0.50, 0.80, 0.30))
    patches = fbm(x * 1.3, z * 1.3, seed, 3, blur * 1.3)
    tufts = fbm(x * 5.5, z * 4.2, seed + 1, 2, blur * 3.4)
    color = mix(dark, light, smoothstep(0.15, 0.85, 0.55 * patches + 0.45 * tufts))
    dx, dz, number = spots(x * 3.1, z * 1.35, seed + 2)
    meadow = smoothstep(0.35, 0.6, value_noise(x * 0.9, z * 0.9, seed + 3) + luck.number(3, -0.25, 0.35))
    shown = (number < 0.75) * meadow * smoothstep(6.0, 2.5, distance)
    far = torch.sqrt(dx * dx + dz * dz)
    petals = pick(((1.0, 1.0, 0.97), (1.0, 0.88, 0.22), (1.0, 1.0, 0.97), (0.98, 0.62, 0.76)), fraction(number * 41))
    color = mix(color, petals, smoothstep(0.16, 0.11, far) * shown)
    return mix(color, (0.99, 0.78, 0.10), smoothstep(0.075, 0.045, far) * shown)


def _grass_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    low = luck.color(10, (0.84, 0.95, 1.0), (0.90, 0.96, 0.98), (0.98, 0.95, 0.86))
    high = luck.color(11, (0.30, 0.62, 0.96), (0.24, 0.54, 0.92), (0.42, 0.72, 0.98))
    color = sky(u, v, seed, low, high, luck.number(12, 0.0, 1.1), (1.0, 1.0, 1.0), (0.80, 0.87, 0.95))
    sun = luck.side(13) * luck.number(14, 0.05, 0.3)
    color = mix(color, (1.0, 0.98, 0.82), glow(u, v, sun, 0.24, 0.09) * luck.yes(15, 0.5))
    far = luck.color(16, (0.56, 0.74, 0.72), (0.62, 0.78, 0.80), (0.60, 0.76, 0.60))
    near = luck.color(17, (0.46, 0.72, 0.34), (0.56, 0.76, 0.36), (0.38, 0.66, 0.36))
    color = mix(color, far, below(v, ridge(u, seed + 3, 1.9, 0.02, 0.15)))
    fields = smoothstep(0.42, 0.58, value_noise(u * 7, v * 34, seed + 4))
    color = mix(color, mix(near, (0.74, 0.84, 0.46), fields * 0.6), below(v, ridge(u, seed + 5, 1.6, 0.0, 0.10, 2)))
    wood = line_noise(u * 2.6, seed + 6) - luck.number(18, 0.30, 0.62)
    crown = smoothstep(0.0, 0.10, wood) * (0.018 + 0.03 * line_noise(u * 30, seed + 7, 2))
    leaves = mix((0.16, 0.42, 0.18), (0.36, 0.62, 0.26), value_noise(u * 46, v * 46, seed + 8))
    return mix(color, leaves, below(v, crown - 0.002))


def _desert_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    light = luck.color(1, (0.99, 0.80, 0.50), (0.98, 0.72, 0.42), (0.97, 0.84, 0.60), (0.95, 0.64, 0.40))
    dunes = fbm(x * 0.9, z * 0.9, seed, 3, blur * 0.9)
    phase = z * luck.number(2, 11, 16) + x * luck.number(3, -5, 5) + 9 * dunes
    ripple = 0.5 + 0.5 * torch.sin(phase)
    ripple = 0.5 + (ripple * ripple * (3 - 2 * ripple) - 0.5) * smoothstep(0.5, 0.15, blur * 2.2)
    color = mix(
        light * torch.tensor((0.82, 0.68, 0.58), device=x.device),
        light,
        (0.45 * ripple + 0.85 * dunes - 0.14).clamp(0, 1),
    )
    dx, dz, number = spots(x * 1.9, z * 1.3, seed + 1)
    far = torch.sqrt(dx * dx + dz * dz)
    stone = smoothstep(0.02, -0.02, far - 0.07 - 0.08 * fraction(number * 7)) * (number < luck.number(4, -0.05, 0.25))
    rock = luck.color(5, (0.66, 0.42, 0.30), (0.58, 0.46, 0.40), (0.72, 0.50, 0.34))
    return mix(color, rock * (0.9 + 1.2 * dx).clamp(0.6, 1.2).unsqueeze(-1), stone * smoothstep(6.0, 2.0, distance))


def _mesas(u: Tensor, seed: Tensor) -> Tensor:
    """Flat-topped rocks with steep sides: their outline."""
    wall = smoothstep(0.47, 0.53, line_noise(u * 2.3 + 20, seed))
    return wall * (0.075 + 0.05 * line_noise(torch.floor(u * 9) * 0.31, seed + 1)) + 0.02 * smoothstep(0.3, 0.5, wall)


def _desert_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    low = luck.color(10, (1.0, 0.92, 0.74), (0.98, 0.94, 0.84), (1.0, 0.86, 0.66))
    high = luck.color(11, (0.36, 0.68, 0.93), (0.26, 0.58, 0.90), (0.60, 0.78, 0.90))
    color = mix(low, high, (v * 3.4).clamp(0, 1) ** 0.8)
    streak = fbm(u * 1.6, v * 16, seed + 1, 3)
    color = mix(color, (1.0, 0.97, 0.92), smoothstep(0.54, 0.76, streak) * luck.number(12, -0.3, 0.8).clamp(min=0))
    sun_u, sun_v = luck.side(13) * luck.number(14, 0.05, 0.28), luck.number(15, 0.10, 0.21)
    color = mix(color, (1.0, 0.96, 0.80), glow(u, v, sun_u, sun_v, 0.07) * 0.8)
    color = mix(color, (1.0, 0.99, 0.92), disc(u, v, sun_u, sun_v, 0.033))
    rock = luck.color(16, (0.80, 0.46, 0.30), (0.74, 0.42, 0.34), (0.84, 0.56, 0.36))
    layers = rock * (0.9 + 0.16 * line_noise(v * 70 + u * 2, seed + 2)).unsqueeze(-1)
    color = mix(color, mix(layers, low, torch.full_like(u, 0.25)), below(v, _mesas(u, seed + 3)) * luck.yes(17, 0.6))
    sand = luck.color(1, (0.99, 0.80, 0.50), (0.98, 0.72, 0.42), (0.97, 0.84, 0.60), (0.95, 0.64, 0.40))
    for row, (frequency, high_v, mist) in enumerate(((1.5, 0.13, 0.35), (2.0, 0.07, 0.1))):
        top = ridge(u, seed + 4 + row, frequency, -0.01, high_v, 2)
        crest = ridge(u + 0.05, seed + 4 + row, frequency, -0.01, high_v, 2) - top
        side = smoothstep(-0.012, 0.012, crest + 0.12 * (top - v - 0.02))
        dune = mix(sand * torch.tensor((0.84, 0.68, 0.58), device=u.device), sand, side)
        color = mix(color, mix(dune, low, torch.full_like(u, mist)), below(v, top))
    return color


BEACH = Scene(
    _beach_ground,
    _beach_back,
    key_color=(1.0, 0.95, 0.84),
    key_strength=0.90,
    sky=(0.42, 0.50, 0.60),
    bounce=(0.36, 0.31, 0.23),
    haze_color=(0.62, 0.84, 0.94),
    haze=0.012,
)
SNOW = Scene(
    _snow_ground,
    _snow_back,
    key_color=(1.0, 0.96, 0.90),
    key_strength=0.62,
    sky=(0.50, 0.56, 0.66),
    bounce=(0.42, 0.46, 0.52),
    haze_color=(0.80, 0.87, 0.96),
    haze=0.05,
)
GRASS = Scene(
    _grass_ground,
    _grass_back,
    key_color=(1.0, 0.96, 0.85),
    key_strength=0.90,
    sky=(0.42, 0.50, 0.58),
    bounce=(0.20, 0.30, 0.14),
    haze_color=(0.36, 0.56, 0.26),
    haze=0.05,
)
DESERT = Scene(
    _desert_ground,
    _desert_back,
    key_color=(1.0, 0.92, 0.76),
    key_strength=1.0,
    sky=(0.40, 0.46, 0.54),
    bounce=(0.38, 0.26, 0.15),
    haze_color=(0.90, 0.70, 0.46),
    haze=0.04,
)
