"""Rooms: a studio, a wooden table, a kitchen, a red carpet."""

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import cells, fbm, hashed, mix, smoothstep
from dora_diffusion.toybox.scenes.scene import WALL_Z, Luck, Scene, pick
from dora_diffusion.toybox.scenes.shapes import (
    below,
    box,
    disc,
    fraction,
    from_camera,
    glow,
    joints,
    line,
    pixel_depth,
    planks,
    wood_tones,
)


def _studio_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    tint = luck.color(1, (0.97, 0.96, 0.94), (0.97, 0.97, 0.97), (0.94, 0.96, 0.98))
    return mix(tint * luck.number(2, 0.92, 1.0).unsqueeze(-1), (0.98, 0.98, 0.985), smoothstep(0.3, 4.5, distance))


def _studio_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    top = luck.color(10, (0.99, 0.985, 0.97), (0.99, 0.99, 0.99), (0.96, 0.98, 1.0), (0.86, 0.87, 0.89))
    color = mix((0.97, 0.97, 0.975), top, smoothstep(0.0, 0.30, v))
    pool = glow(u, v, luck.number(11, -0.35, 0.35), luck.number(12, 0.02, 0.25), 0.22)
    return mix(color, (1.0, 1.0, 1.0), pool * luck.number(13, 0.0, 0.9))


def _blurred_room(u: Tensor, v: Tensor, seed: Tensor, luck: Luck) -> Tensor:
    """A room far out of focus, above and below the horizon ``v`` = 0: light from a window, lamps as discs."""
    wall = luck.color(10, (0.80, 0.60, 0.44), (0.66, 0.68, 0.58), (0.58, 0.60, 0.70), (0.82, 0.62, 0.54))
    color = mix(wall * 0.60, mix(wall, (1.0, 0.92, 0.78), torch.full_like(u, 0.3)), smoothstep(-0.20, 0.26, v))
    things = fbm(u * 3.1, v * 3.6, seed + 1, 2)
    color = mix(color, wall * 0.50, smoothstep(0.46, 0.70, things) * 0.7)
    color = mix(color, (1.0, 0.88, 0.66), smoothstep(0.46, 0.26, things) * 0.35)
    at = luck.side(11) * luck.number(12, 0.10, 0.34)
    window = box(u - at, v - 0.19, luck.number(13, 0.09, 0.15), 0.15, 0.03)
    cross = 1 - 0.5 * line(u - at, 0.016) - 0.5 * line(v - 0.17, 0.014)
    color = mix(
        color,
        luck.color(14, (1.0, 0.96, 0.84), (0.86, 0.95, 1.0), (1.0, 0.86, 0.66)),
        window * cross * luck.yes(15, 0.65),
    )
    lights = ((1.0, 0.84, 0.52), (1.0, 0.72, 0.46), (1.0, 0.93, 0.74), (0.86, 0.90, 0.72))
    for layer, frequency in enumerate((6.0, 9.0)):
        far, number = cells(u * frequency + 0.3, v * frequency + 0.6, seed + 3 + layer)
        size = 0.14 + 0.10 * fraction(number * 7)
        spot = smoothstep(0.045, -0.045, far - size) * (0.7 + 0.3 * smoothstep(size - 0.10, size, far))
        color = mix(color, pick(lights, fraction(number * 31)), spot * (number < luck.number(16, 0.15, 0.6)) * 0.5)
    return color


def _table_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    dark, light = wood_tones(luck, 2)
    turned = luck.number(3, -0.25, 0.25)
    color = planks(x + turned * z, z, seed, luck.number(4, 0.30, 0.55), dark, light, dark * 0.55)
    edge = z - luck.number(1, -2.2, -1.1)
    color = mix(color, light * 1.04, line(edge - 0.05, 0.05) * 0.6)
    away = from_camera(z)
    room = _blurred_room(x / away, -0.75 / away, seed, luck)
    return mix(color, room * 0.95, smoothstep(0.02, -0.06, edge))


def _table_back(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    return _blurred_room(u, v, seed, Luck(seed))


def _veins(x: Tensor, z: Tensor, seed: Tensor, blur: Tensor) -> Tensor:
    bend = fbm(x * 1.3, z * 1.3, seed, 2, blur)
    return torch.exp(-(fbm(x * 1.1 + 2.4 * bend, z * 1.1, seed + 3, 2, blur) - 0.5).abs() * 15)


def _kitchen_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    stone = luck.color(1, (0.95, 0.95, 0.94), (0.93, 0.90, 0.85), (0.86, 0.88, 0.90))
    vein = luck.color(2, (0.66, 0.68, 0.72), (0.74, 0.66, 0.56), (0.60, 0.66, 0.66))
    marble = mix(stone, vein, _veins(x, z, seed, blur) * luck.number(3, 0.35, 0.8))
    dark, light = wood_tones(luck, 4)
    wood = planks(z + 0.2, x, seed + 6, 0.42, dark, light, dark * 0.6)  # boards along the wall
    color = mix(marble, wood, luck.yes(5, 0.35))
    return mix(color, color * 0.72, smoothstep(0.16, 0.0, z - WALL_Z))


def _utensils(x: Tensor, y: Tensor, luck: Luck, color: Tensor, seed: Tensor) -> Tensor:
    """A rail on the wall with spoons, ladles and pans hanging from it."""
    rail = luck.number(20, 1.12, 1.24)
    metal = luck.one_of(21, (0.62, 0.65, 0.70), (0.82, 0.62, 0.34), (0.34, 0.36, 0.40))
    pitch = 0.21
    at = x / pitch + luck.number(22)
    column = torch.floor(at)
    number = hashed(column, 4, seed)
    dx, dy = (fraction(at) - 0.5) * pitch, y - rail
    long = 0.20 + 0.16 * number
    handle = box(dx, dy + long / 2, 0.013, long / 2, 0.006)
    kind = fraction(number * 23)
    head = disc(dx, (dy + long) * (0.72 + 0.5 * (kind < 0.5)), 0.0, 0.0, 0.042 + 0.034 * (kind > 0.72), 0.008)
    made = pick(((0.76, 0.54, 0.32), (0.50, 0.53, 0.58), (0.30, 0.32, 0.36), (0.86, 0.56, 0.40)), fraction(number * 57))
    there = (fraction(number * 11) < 0.75) * below(y, rail, 0.01)
    color = mix(color, made, torch.maximum(handle, head) * there)
    return mix(color, metal, line(dy, 0.016))


def _jars(x: Tensor, y: Tensor, luck: Luck, color: Tensor, seed: Tensor) -> Tensor:
    """A board on the wall with coloured jars."""
    board = luck.number(23, 0.86, 0.98)
    at = x / 0.23 + luck.number(24)
    column = torch.floor(at)
    number = hashed(column, 6, seed)
    dx, dy = (fraction(at) - 0.5) * 0.23, y - board
    tall, wide = 0.15 + 0.12 * number, 0.06 + 0.03 * fraction(number * 17)
    jar = box(dx, dy - tall / 2, wide, tall / 2)
    paint = pick(
        ((0.95, 0.76, 0.34), (0.90, 0.48, 0.36), (0.46, 0.66, 0.50), (0.95, 0.92, 0.84), (0.42, 0.58, 0.76)),
        fraction(number * 57),
    )
    paint = mix(paint, (1.0, 1.0, 1.0), line(dx + 0.3 * wide, 0.02) * 0.5)
    lid = box(dx, dy - tall, wide * 1.02, 0.02)
    there = fraction(number * 11) < 0.8
    color = mix(color, mix(paint, (0.60, 0.42, 0.26), lid), torch.maximum(jar, lid) * there)
    dark, light = wood_tones(luck, 25)
    color = mix(color, color * 0.80, smoothstep(-0.16, -0.02, dy) * below(dy, 0.0) * 0.8)
    return mix(color, (dark + light) / 2, box(dy, dy, 0.024, 1.0))


def _kitchen_back(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    glaze = luck.color(
        10, (0.93, 0.96, 0.96), (0.80, 0.92, 0.90), (0.98, 0.93, 0.82), (0.82, 0.90, 0.97), (0.96, 0.96, 0.95)
    )
    accent = luck.one_of(
        11, (0.55, 0.80, 0.84), (0.98, 0.80, 0.46), (0.66, 0.80, 0.62), (0.60, 0.72, 0.90), (0.96, 0.72, 0.62)
    )
    wide = luck.number(12, 0.24, 0.32)
    tall = wide * (1 - 0.45 * luck.yes(13, 0.45))
    row = torch.floor(y / tall)
    across = x / wide + 0.5 * fraction(row * 0.5) * 2 * luck.yes(13, 0.45)
    number = hashed(torch.floor(across), row, seed)
    tile = mix(glaze, accent, (number < luck.number(14, 0.0, 0.35)).float() * 0.85)
    tile = tile * (0.97 + 0.05 * fraction(number * 7)).unsqueeze(-1)
    tile = mix(tile, (1.0, 1.0, 1.0), smoothstep(0.6, 1.0, fraction(y / tall)) * 0.25)
    color = mix((0.74, 0.77, 0.79), tile, joints(across, 0.05) * joints(y / tall, 0.05 / 0.8))
    with_rail = luck.yes(15, 0.55).unsqueeze(-1)
    return torch.where(with_rail > 0, _utensils(x, y, luck, color, seed), _jars(x, y, luck, color, seed))


def _carpet_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    red = luck.color(1, (0.86, 0.16, 0.18), (0.74, 0.10, 0.16), (0.90, 0.24, 0.20))
    gold = luck.color(2, (0.98, 0.80, 0.38), (0.95, 0.86, 0.66), (0.96, 0.70, 0.34))
    pile = fbm(x * 4, z * 2.5, seed, 2, blur * 2.5)
    color = red * (0.78 + 0.34 * pile).unsqueeze(-1)
    wide, deep = luck.number(3, 0.90, 1.25), luck.number(4, 0.72, 0.90)
    edge = torch.maximum(x.abs() - wide, (z - 0.05).abs() - deep - luck.number(5, 0.0, 0.15))  # 0 at the rim
    diamond = (fraction(x * 3.2) - 0.5).abs() + (fraction(z * 2.2) - 0.5).abs()
    figure = smoothstep(0.26, 0.20, diamond) * luck.yes(6, 0.5) * smoothstep(-0.36, -0.40, edge)
    color = mix(color, mix(red * 0.58, gold, luck.yes(7, 0.4)), figure * 0.75)
    color = mix(color, red * 0.55, smoothstep(-0.28, -0.26, edge) * smoothstep(-0.08, -0.10, edge) * luck.yes(8, 0.5))
    color = mix(color, gold, (line(edge + 0.28, 0.035) + line(edge + 0.075, 0.055)).clamp(0, 1))
    dark, light = wood_tones(luck, 9)
    floor = planks(z, x, seed + 4, 0.34, dark, light, dark * 0.6)
    floor = mix(floor * 0.62, floor, smoothstep(0.0, 0.12, edge))
    color = mix(color, floor, smoothstep(-0.012, 0.012, edge))
    return mix(color, color * 0.6, smoothstep(0.14, 0.0, z - WALL_Z))


def _picture(x: Tensor, y: Tensor, luck: Luck, place: int, color: Tensor, at: Tensor) -> Tensor:
    """A framed landscape, hanging around ``at``."""
    dx, dy = x - at, y - luck.number(place, 0.96, 1.10)
    wide, tall = luck.number(place + 1, 0.20, 0.32), luck.number(place + 2, 0.18, 0.26)
    heaven = mix(
        luck.one_of(place + 3, (1.0, 0.82, 0.56), (0.86, 0.94, 1.0), (0.98, 0.74, 0.66)),
        (0.44, 0.68, 0.92),
        smoothstep(-0.1, 0.25, dy),
    )
    heaven = mix(heaven, (1.0, 0.96, 0.74), disc(dx, dy, wide * 0.4, tall * 0.35, 0.05, 0.01))
    land = luck.one_of(place + 4, (0.36, 0.58, 0.36), (0.22, 0.42, 0.60), (0.62, 0.46, 0.34))
    hill = 0.05 * torch.sin(dx * 14 + luck.number(place + 5, 0, 6)) - 0.04
    painting = mix(mix(heaven, land * 1.25, below(dy, hill + 0.05, 0.01)), land, below(dy, hill - 0.02, 0.01))
    frame = luck.one_of(place + 6, (0.46, 0.28, 0.14), (0.86, 0.68, 0.32), (0.97, 0.95, 0.90), (0.20, 0.18, 0.18))
    color = mix(color, color * 0.82, box(dx - 0.02, dy + 0.03, wide + 0.04, tall + 0.04, 0.03))
    color = mix(color, frame, box(dx, dy, wide + 0.04, tall + 0.04))
    return mix(color, painting, box(dx, dy, wide, tall))


def _carpet_back(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    paper = luck.color(
        20, (0.97, 0.91, 0.76), (0.80, 0.88, 0.78), (0.78, 0.86, 0.94), (0.96, 0.84, 0.80), (0.88, 0.82, 0.92)
    )
    stripe = smoothstep(0.22, 0.28, (fraction(x * luck.number(21, 2.6, 4.2)) - 0.5).abs()) * luck.yes(22, 0.6)
    far, number = cells(x * 3.4 + 0.5 * fraction(torch.floor(y * 3.4) * 0.5) * 2, y * 3.4, seed * 0 + 5)
    dot = smoothstep(0.16, 0.11, far) * (1 - luck.yes(22, 0.6)) * (number < 0.9)
    color = mix(paper, paper * 0.91, stripe)
    color = mix(color, mix(paper, (1.0, 1.0, 1.0), luck.yes(23, 0.5)) * 0.93, dot * 0.8)
    first = luck.number(24, -0.9, 0.9)
    color = _picture(x, y, luck, 30, color, first)
    second = _picture(x, y, luck, 40, color, first - torch.sign(first) * luck.number(25, 0.85, 1.1))
    color = torch.where(luck.yes(26, 0.6).unsqueeze(-1) > 0, second, color)
    panel = luck.number(27, 0.13, 0.34)
    wood = luck.one_of(28, (0.97, 0.96, 0.93), (0.97, 0.96, 0.93), (0.62, 0.42, 0.26))
    wainscot = wood * (1 - 0.10 * line(fraction(x * 2.2) - 0.5, 0.05) * smoothstep(0.2, 0.26, panel)).unsqueeze(-1)
    color = mix(color, wainscot, below(y, panel, 0.008))
    return mix(color, wood * 0.84, line(y - panel, 0.016) + line(y - 0.09, 0.012) * 0.5)


STUDIO = Scene(
    _studio_ground,
    _studio_back,
    key_color=(1.0, 0.98, 0.95),
    key_strength=0.72,
    sky=(0.52, 0.53, 0.56),
    bounce=(0.40, 0.40, 0.40),
    haze_color=(0.92, 0.92, 0.93),
    haze=0.35,
)
TABLE = Scene(
    _table_ground,
    _table_back,
    key_color=(1.0, 0.91, 0.78),
    key_strength=0.85,
    sky=(0.42, 0.38, 0.35),
    bounce=(0.28, 0.20, 0.14),
)
KITCHEN = Scene(
    _kitchen_ground,
    _kitchen_back,
    key_color=(1.0, 0.97, 0.92),
    key_strength=0.66,
    sky=(0.50, 0.52, 0.54),
    bounce=(0.38, 0.38, 0.37),
    wall=True,
)
CARPET = Scene(
    _carpet_ground,
    _carpet_back,
    key_color=(1.0, 0.91, 0.78),
    key_strength=0.78,
    sky=(0.46, 0.42, 0.39),
    bounce=(0.36, 0.18, 0.16),
    wall=True,
)
