"""Shapes that several scenes share. Masks are ``(b, n)``, 0 to 1, with edges of about one pixel."""

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import Color, fbm, hashed, line_noise, mix, smoothstep
from dora_diffusion.toybox.scenes.scene import Luck

EDGE = 0.004  # slope of one and a half pixels at 256
_CAMERA = 2.3  # where the camera typically is, seen from the toy
_PIXEL_DEPTH = 0.009  # ground that one pixel of 128 covers in depth, at distance one

_WOODS = (
    ((0.62, 0.38, 0.20), (0.88, 0.64, 0.38)),  # oak
    ((0.40, 0.22, 0.13), (0.66, 0.42, 0.26)),  # walnut
    ((0.76, 0.56, 0.34), (0.96, 0.80, 0.56)),  # pine
    ((0.52, 0.24, 0.14), (0.80, 0.44, 0.26)),  # cherry
)


def from_camera(z: Tensor) -> Tensor:
    """About how far ground at depth ``z`` is from the camera."""
    return (_CAMERA - z).clamp(min=0.5)


def pixel_depth(z: Tensor) -> Tensor:
    """About how much ground a pixel covers in depth: textures finer than that must fade."""
    away = from_camera(z)
    return _PIXEL_DEPTH * away * away


def fraction(x: Tensor) -> Tensor:
    """The part behind the point, 0 to 1."""
    return x - torch.floor(x)


def below(v: Tensor, height: Tensor | float, soft: float = EDGE) -> Tensor:
    """Where ``v`` is under an outline."""
    return smoothstep(soft, -soft, v - height)


def disc(
    u: Tensor, v: Tensor, at_u: Tensor | float, at_v: Tensor | float, radius: Tensor | float, soft: float = EDGE
) -> Tensor:
    """A filled circle."""
    far = torch.sqrt((u - at_u) ** 2 + (v - at_v) ** 2)
    return smoothstep(soft, -soft, far - radius)


def box(x: Tensor, y: Tensor, width: Tensor | float, height: Tensor | float, soft: float = 0.008) -> Tensor:
    """A rectangle around the origin; half width and half height."""
    return smoothstep(soft, -soft, x.abs() - width) * smoothstep(soft, -soft, y.abs() - height)


def glow(u: Tensor, v: Tensor, at_u: Tensor | float, at_v: Tensor | float, size: Tensor | float) -> Tensor:
    """Light around a point, 1 in the middle."""
    return torch.exp(-torch.sqrt((u - at_u) ** 2 + (v - at_v) ** 2) / size)


def line(x: Tensor, width: Tensor | float) -> Tensor:
    """A soft line where ``x`` is 0."""
    return torch.exp(-((x / width) ** 2))


def joints(x: Tensor, width: float) -> Tensor:
    """0 in the joints at whole numbers, 1 between; ``width`` in units of ``x``."""
    f = fraction(x)
    return smoothstep(0.0, width, torch.minimum(f, 1 - f))


def ridge(u: Tensor, seed: Tensor, frequency: float, low: float, high: float | Tensor, octaves: int = 3) -> Tensor:
    """The outline of hills between two heights."""
    return low + (high - low) * line_noise(u * frequency + 40, seed, octaves)


def sky(
    u: Tensor, v: Tensor, seed: Tensor, low: Color, high: Color, cover: Tensor | float, cloud: Color, shade: Color
) -> Tensor:
    """A sky from the horizon's colour to ``high``, with clouds lit from above; ``cover`` 0 (clear) to 1."""
    color = mix(low, high, (v * 3.2).clamp(0, 1) ** 0.75)
    density = fbm(u * 3.4, v * 11, seed, 4)
    above = fbm(u * 3.4 + 0.15, v * 11 + 0.45, seed, 3)
    edge = 0.66 - 0.24 * cover
    mass = smoothstep(edge, edge + 0.14, density) * smoothstep(0.0, 0.06, v) * 0.95
    lit = smoothstep(-0.12, 0.14, density - above)
    return mix(color, mix(shade, cloud, lit), mass)


def pines(
    u: Tensor, v: Tensor, seed: Tensor, frequency: float, height: float, base: Tensor | float
) -> tuple[Tensor, Tensor]:
    """A row of fir trees: the mask, and how far up its tier each point is (0 to 1, for snow on the branches)."""
    x = u * frequency
    column = torch.floor(x)
    size = 0.55 + 0.45 * hashed(column, 1, seed)
    centre = 0.5 + 0.25 * (hashed(column, 2, seed) - 0.5)
    up = (v - base) / (height * size)
    tier = fraction(up * 3.5)
    half = 0.36 * size * (1 - up).clamp(min=0) * (1.15 - 0.5 * tier)
    off = (x - column - centre).abs()
    mask = smoothstep(0.05, -0.05, off - half) * smoothstep(1.0, 0.96, up)
    return mask, tier


def planks(x: Tensor, z: Tensor, seed: Tensor, width: Tensor | float, dark: Color, light: Color, gap: Color) -> Tensor:
    """Boards along z, each with a shade and a soft grain of its own."""
    across = x / width + 0.3
    board = torch.floor(across)
    blur = pixel_depth(z)
    grain = fbm(across * 5 + board * 7, z * 0.9 + board * 3.7, seed, 2, blur)
    vein = line_noise(across * 9 + 2.2 * grain, seed + 5)
    tone = 0.5 * grain + 0.2 * vein + 0.45 * hashed(board, 3, seed)
    color = mix(dark, light, tone.clamp(0, 1))
    return mix(gap, color, 0.25 + 0.75 * joints(across, 0.05))


def wood_tones(luck: Luck, place: int) -> tuple[Tensor, Tensor]:
    """Dark and light tone of a kind of wood."""
    return luck.color(place, *(w[0] for w in _WOODS)), luck.color(place, *(w[1] for w in _WOODS))
