"""Places with something close behind the toy: a brick wall, the edge of a forest, a flower garden."""

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import Color, fbm, hashed, line_noise, mix, smoothstep, spots, value_noise
from dora_diffusion.toybox.scenes.scene import WALL_Z, Luck, Scene, Triple, pick
from dora_diffusion.toybox.scenes.shapes import below, fraction, joints, line, pixel_depth


def _foliage(x: Tensor, y: Tensor, seed: Tensor, size: float, dark: Color, light: Color) -> Tensor:
    """Clumps of leaves, lit from above: brighter where the mass falls away upwards."""
    u, v = x / size, y / size
    here = fbm(u * 0.55, v * 0.55, seed, 2)
    above = fbm(u * 0.55 + 0.06, v * 0.55 + 0.24, seed, 2)
    dx, dy, number = spots(u, v * 1.1, seed + 1, 0.8)
    leaf = smoothstep(0.42, 0.08, torch.sqrt(dx * dx + dy * dy)) * (number - 0.35)
    return mix(dark, light, smoothstep(-0.02, 0.95, 0.40 + 1.5 * (here - above) + 0.3 * (here - 0.5) + 0.35 * leaf))


def _brick_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    stone = luck.color(1, (0.74, 0.73, 0.71), (0.66, 0.67, 0.70), (0.80, 0.75, 0.67))
    size = luck.number(2, 0.55, 0.85)
    row = torch.floor(z / size)
    across = x / size + 0.5 * row * luck.yes(3, 0.5)
    slab = hashed(torch.floor(across), row, seed)
    wear = fbm(x * 2.2, z * 2.2, seed + 1, 3, blur * 2.2)
    color = stone * (0.80 + 0.14 * slab + 0.22 * wear).unsqueeze(-1)
    color = mix(color * 0.66, color, joints(across, 0.045) * joints(z / size, 0.07))
    moss = smoothstep(0.55, 0.75, wear + 0.5 * smoothstep(0.5, 0.0, z - WALL_Z) - 0.1) * luck.yes(4, 0.5)
    color = mix(color, (0.46, 0.58, 0.30), moss * 0.7)
    return mix(color, color * 0.66, smoothstep(0.16, 0.0, z - WALL_Z))


def _ivy(x: Tensor, y: Tensor, seed: Tensor, luck: Luck, color: Tensor) -> Tensor:
    side = luck.side(20) * x
    hang = 1.50 - luck.number(21, 0.2, 0.8) * smoothstep(-0.2, 1.1, side) - 0.35 * line_noise(x * 2.6, seed + 8, 2)
    creep = y - hang + 0.12 * (value_noise(x * 9, y * 9, seed + 9) - 0.5)
    leaves = _foliage(x, y, seed + 10, 0.095, (0.12, 0.34, 0.14), (0.48, 0.72, 0.28))
    color = mix(color, color * 0.72, smoothstep(-0.08, 0.04, creep) * luck.yes(22, 0.4))
    return mix(color, leaves, smoothstep(-0.01, 0.02, creep) * luck.yes(22, 0.4))


def _brick_back(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    tall = luck.number(10, 0.165, 0.225)
    wide = tall * luck.number(11, 2.0, 2.4)
    row = torch.floor(y / tall)
    across = x / wide + luck.number(12) + fraction(row * luck.one_of(13, (0.5, 0.5, 0.5), (0.25, 0.5, 0.75))[..., 0])
    number = hashed(torch.floor(across), row, seed)
    dark = luck.color(14, (0.62, 0.23, 0.17), (0.70, 0.40, 0.24), (0.52, 0.24, 0.22), (0.70, 0.30, 0.16))
    light = luck.color(14, (0.90, 0.47, 0.35), (0.96, 0.68, 0.46), (0.80, 0.48, 0.42), (0.98, 0.58, 0.37))
    brick = mix(dark, light, (0.72 * number + 0.42 * value_noise(x * 5, y * 8, seed + 1) - 0.07).clamp(0, 1))
    brick = brick * (1.0 + 0.10 * (fraction(y / tall) - 0.5)).unsqueeze(-1)
    mortar = luck.color(15, (0.84, 0.81, 0.76), (0.68, 0.64, 0.60), (0.90, 0.87, 0.82))
    color = mix(mortar, brick, joints(across, 0.045) * joints(y / tall, 0.095))
    color = _ivy(x, y, seed, luck, color)
    plinth = luck.number(16, 0.10, 0.16) * luck.yes(17, 0.4)
    return mix(color, mortar * 0.82, below(y, plinth, 0.008) * luck.yes(17, 0.4))


def _season(luck: Luck) -> tuple[Tensor, Tensor, Tensor]:
    """Leaves in shade, leaves in the sun, and the light between the trees."""
    return (
        luck.color(1, (0.14, 0.38, 0.16), (0.10, 0.36, 0.24), (0.24, 0.38, 0.12), (0.52, 0.28, 0.08)),
        luck.color(1, (0.50, 0.74, 0.26), (0.36, 0.68, 0.40), (0.70, 0.76, 0.26), (0.96, 0.64, 0.20)),
        luck.color(2, (0.86, 0.95, 0.72), (0.80, 0.93, 0.88), (0.98, 0.95, 0.74), (0.78, 0.90, 0.94)),
    )


def _forest_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    shade, sunny, _ = _season(luck)
    soil = luck.color(3, (0.42, 0.29, 0.18), (0.36, 0.30, 0.18), (0.48, 0.32, 0.20))
    patches = fbm(x * 1.5, z * 1.5, seed, 3, blur * 1.5)
    color = soil * (0.72 + 0.5 * fbm(x * 3.1, z * 2.4, seed + 1, 2, blur * 2.4)).unsqueeze(-1)
    moss = mix((0.22, 0.40, 0.14), (0.46, 0.62, 0.24), fbm(x * 5, z * 3, seed + 2, 2, blur * 3))
    color = mix(color, moss, smoothstep(0.42, 0.58, patches + luck.number(4, -0.10, 0.16)))
    litter = ((0.86, 0.54, 0.18), (0.78, 0.36, 0.14), (0.90, 0.72, 0.28), (0.56, 0.58, 0.22))
    for layer, size in enumerate((0.30, 0.21)):
        dx, dz, number = spots(x / size, z / (size * 1.7), seed + 4 + layer)
        turn = fraction(number * 19) * 2 - 1
        far = torch.sqrt((dx + turn * dz) ** 2 + (dz * 1.25) ** 2)
        leaf = smoothstep(0.20, 0.14, far) * (number < luck.number(5, 0.15, 0.65)) * smoothstep(0.6, 0.3, blur * 2)
        color = mix(color, pick(litter, fraction(number * 53)), leaf * 0.9)
    dapple = smoothstep(0.55, 0.72, value_noise(x * 2.6, z * 1.8, seed + 7))
    color = mix(color, (1.0, 0.96, 0.70), dapple * luck.number(6, 0.1, 0.4))
    fern = smoothstep(0.34, 0.0, z - WALL_Z - 0.14 * (line_noise(x * 5, seed + 8, 2) - 0.3))
    return mix(color, mix(shade, sunny, 0.35 * patches) * 0.85, fern)


def _trunks(x: Tensor, y: Tensor, seed: Tensor, pitch: float, width: float) -> tuple[Tensor, Tensor]:
    """Trunks standing side by side: the mask, and -1 to 1 across each."""
    bent = x / pitch + 0.07 * (line_noise(y * 1.7 + 3, seed + 5) - 0.5)
    column = torch.floor(bent)
    number = hashed(column, 1, seed)
    centre = 0.5 + 0.4 * (hashed(column, 2, seed) - 0.5)
    flare = 1 + 0.7 * torch.exp(-y * 9)
    half = width / pitch * (0.55 + 0.75 * number) * flare
    across = (bent - column - centre) / half
    return smoothstep(1.06, 0.94, across.abs()) * (fraction(number * 13) < 0.85), across.clamp(-1, 1)


def _forest_back(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    shade, sunny, light = _season(luck)
    color = mix(
        mix(light, sunny, smoothstep(0.7, 0.0, y) * 0.75), light, (fbm(x * 1.6, y * 1.6, seed, 2) - 0.1).clamp(0, 1)
    )
    color = mix(
        color,
        mix(shade, sunny, value_noise(x * 6, y * 6, seed + 1)),
        smoothstep(0.48, 0.62, fbm(x * 2.2, y * 2.2, seed + 2, 3)) * 0.45,
    )
    bark = luck.color(10, (0.36, 0.26, 0.18), (0.30, 0.27, 0.23), (0.44, 0.28, 0.18))
    for row, (pitch, width, mist) in enumerate(((0.34, 0.045, 0.62), (0.58, 0.075, 0.34), (1.05, 0.13, 0.0))):
        mask, across = _trunks(x + 0.2 * row, y, seed + 11 + row, pitch, width)
        ribs = line_noise(across * 3 + 0.6 * y, seed + 3)
        wood = bark * (0.72 + 0.34 * across * luck.side(11) + 0.28 * ribs).clamp(0.3, 1.4).unsqueeze(-1)
        color = mix(color, mix(wood, light * 0.9, torch.full_like(x, mist)), mask)
        rim = luck.number(12, 0.95, 1.20) + 0.16 * row
        mass = fbm(x * 1.9 + 7 * row, y * 1.9, seed + 15 + row, 2)
        crown = y - rim + 0.5 * (mass - 0.5)
        front = row == 2
        leaves = (
            _foliage(x, y, seed + 20, 0.13, shade, sunny) if front else mix(sunny, shade, smoothstep(0.3, 0.7, mass))
        )
        color = mix(color, mix(leaves, light, torch.full_like(x, mist * 0.5)), smoothstep(-0.02, 0.03, crown))
    beam = line_noise((x + luck.number(13, -0.9, 0.9) * y) * 2.6 + 30, seed + 6, 2)
    color = mix(color, light, smoothstep(0.5, 0.85, beam) * smoothstep(0.0, 0.8, y) * luck.number(14, 0.0, 0.7))
    bush = 0.05 + 0.26 * line_noise(x * 2.6, seed + 7, 3) + 0.05 * value_noise(x * 14, y * 8, seed + 8)
    ferns = _foliage(x, y * 0.8, seed + 9, 0.11, shade * 0.85, sunny * 0.92)
    return mix(color, ferns, below(y, bush, 0.012))


_BEDS: tuple[tuple[Triple, ...], ...] = (
    ((0.96, 0.30, 0.36), (0.99, 0.80, 0.24), (0.98, 0.60, 0.76)),
    ((0.66, 0.42, 0.86), (0.98, 0.62, 0.78), (0.99, 0.97, 0.94)),
    ((0.99, 0.56, 0.22), (0.99, 0.84, 0.28), (0.93, 0.26, 0.34)),
    ((0.98, 0.50, 0.70), (0.99, 0.97, 0.95), (0.60, 0.56, 0.92)),
    ((0.99, 0.82, 0.30), (0.99, 0.98, 0.94), (0.42, 0.56, 0.94)),
)


def _petals(luck: Luck, number: Tensor) -> Tensor:
    """Each flower wears a colour of the image's bed."""
    beds = torch.tensor(_BEDS, device=number.device)
    bed = (luck.number(1) * len(_BEDS)).long().clamp(max=len(_BEDS) - 1)
    return beds[bed, (number * 3).long().clamp(max=2)]


def _flowers(x: Tensor, y: Tensor, seed: Tensor, luck: Luck, color: Tensor, chance: Tensor) -> Tensor:
    """Paints a blossom over ``color`` in a share of the unit cells, ``chance`` (0 to 1, at every point)."""
    dx, dy, number = spots(x, y, seed, 0.3)
    there = (number < chance).float()
    far = torch.sqrt(dx * dx + dy * dy)
    kind = fraction(number * 37)
    lobes = torch.cos(5 * torch.atan2(dy, dx) + 6 * number) * (kind < 0.7)
    radius = 0.24 + 0.06 * fraction(number * 7) + 0.045 * lobes
    paint = _petals(luck, fraction(number * 61))
    paint = mix(paint * 0.80, paint, smoothstep(0.02, 0.20, far))
    heart = mix((0.99, 0.82, 0.22), (0.60, 0.34, 0.14), (kind > 0.5).float())
    blossom = mix(paint, heart, smoothstep(0.11, 0.08, far))
    color = mix(color, color * 0.62, smoothstep(0.10, -0.05, far - radius) * there * 0.7)
    return mix(color, blossom, smoothstep(0.03, -0.03, far - radius) * there)


def _garden_ground(x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    blur = pixel_depth(z)
    dark = luck.color(2, (0.26, 0.54, 0.18), (0.22, 0.50, 0.22), (0.32, 0.56, 0.18))
    light = luck.color(3, (0.58, 0.80, 0.32), (0.50, 0.76, 0.34), (0.66, 0.82, 0.38))
    tone = 0.6 * fbm(x * 1.5, z * 1.5, seed, 2, blur * 1.5) + 0.4 * fbm(x * 5.5, z * 4.2, seed + 1, 2, blur * 3.4)
    color = mix(dark, light, smoothstep(0.2, 0.8, tone))
    dx, dz, number = spots(x / 0.62, z / 0.55, seed + 2)
    slab = smoothstep(0.03, -0.03, torch.sqrt(dx * dx + dz * dz) - 0.33 - 0.06 * number) * below(x.abs(), 0.5, 0.02)
    color = mix(color, mix((0.70, 0.68, 0.62), (0.84, 0.80, 0.72), number), slab * luck.yes(4, 0.35))
    room = luck.number(5, 0.22, 0.42) + 0.22 * value_noise(x * 1.2, z * 1.2, seed + 3)
    at_x, at_z = x * 5.0, z * 2.3
    centre_x, centre_z = (torch.floor(at_x) + 0.5) / 5.0, (torch.floor(at_z) + 0.5) / 2.3
    bed = (torch.maximum(centre_x.abs() * 0.9, centre_z.abs() * 0.62) > room).float()
    color = _flowers(at_x, at_z, seed + 4, luck, color, bed * luck.number(6, 0.45, 0.9))
    edge = smoothstep(0.22, 0.0, z - WALL_Z)
    return mix(color, dark * 0.62, edge)


def _fence(x: Tensor, y: Tensor, luck: Luck, color: Tensor) -> Tensor:
    """White pickets with pointed tops, two rails behind."""
    paint = luck.one_of(20, (0.99, 0.985, 0.96), (0.99, 0.985, 0.96), (0.80, 0.62, 0.42))
    pitch, top = luck.number(21, 0.17, 0.22), luck.number(22, 0.62, 0.80)
    off = (fraction(x / pitch) - 0.5).abs() * pitch
    picket = smoothstep(0.008, -0.008, off - pitch * 0.34) * below(y, top - off * 0.9, 0.008)
    rails = (line(y - top * 0.34, 0.038) + line(y - top * 0.76, 0.038)).clamp(0, 1)
    color = mix(color, paint * 0.80, smoothstep(0.4, 0.6, rails))
    return mix(color, paint * (0.90 + 0.10 * smoothstep(0.0, pitch * 0.3, off)).unsqueeze(-1), picket)


def _garden_back(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    luck = Luck(seed)
    heaven = mix((0.86, 0.95, 1.0), luck.color(10, (0.46, 0.72, 0.97), (0.56, 0.80, 0.98)), smoothstep(0.7, 1.6, y))
    heaven = mix(heaven, (1.0, 1.0, 1.0), smoothstep(0.5, 0.68, fbm(x * 1.1, y * 2.2, seed, 3)) * 0.9)
    dark = luck.color(11, (0.14, 0.40, 0.18), (0.18, 0.42, 0.14), (0.12, 0.38, 0.24))
    light = luck.color(12, (0.44, 0.70, 0.30), (0.52, 0.74, 0.28), (0.40, 0.68, 0.38))
    hedge = (
        luck.number(13, 0.82, 1.15)
        + 0.20 * (line_noise(x * 1.7, seed + 1, 3) - 0.5)
        + 0.04 * line_noise(x * 12, seed + 2)
    )
    color = mix(heaven, _foliage(x, y, seed + 3, 0.11, dark, light), below(y, hedge, 0.010))
    color = _flowers(x * 4.6, y * 4.6, seed + 6, luck, color, (y < hedge - 0.04) * luck.number(14, 0.05, 0.45))
    fenced = _fence(x, y, luck, color)
    color = torch.where(luck.yes(15, 0.55).unsqueeze(-1) > 0, fenced, color)
    bush = _foliage(x, y, seed + 20, 0.09, dark * 1.05, light)
    for layer, (size, high) in enumerate(((0.215, 0.56), (0.19, 0.34))):
        top = high * (0.5 + 0.75 * line_noise(x * 2.1 + 9 * layer, seed + 7 + layer, 2))
        color = mix(color, bush, below(y, top - 0.03 + 0.05 * value_noise(x * 13, y * 6, seed + 9), 0.012))
        at_x, at_y = x / size + 0.37 * layer, y / size
        grown = below((torch.floor(at_y) + 0.5) * size, top, 0.02)
        color = _flowers(at_x, at_y, seed + 10 + layer, luck, color, grown * 0.9)
    return mix(color, dark * 0.8, smoothstep(0.10, -0.02, y))


BRICK = Scene(
    _brick_ground,
    _brick_back,
    key_color=(1.0, 0.95, 0.86),
    key_strength=0.80,
    sky=(0.44, 0.46, 0.50),
    bounce=(0.28, 0.26, 0.25),
    wall=True,
)
FOREST = Scene(
    _forest_ground,
    _forest_back,
    key_color=(1.0, 0.97, 0.82),
    key_strength=0.90,
    sky=(0.43, 0.49, 0.42),
    bounce=(0.22, 0.25, 0.15),
    wall=True,
)
GARDEN = Scene(
    _garden_ground,
    _garden_back,
    key_color=(1.0, 0.97, 0.88),
    key_strength=0.88,
    sky=(0.44, 0.50, 0.54),
    bounce=(0.22, 0.30, 0.15),
    wall=True,
)
