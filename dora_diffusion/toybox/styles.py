"""Pictures drawn in other ways: pencil, pixel art, watercolor. The toy stays the same toy.

All lengths are in 1/128 of the picture, so a style looks alike at every size.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.toybox.noise import fbm, smoothstep, value_noise
from dora_diffusion.toybox.words import STYLES

Painter = Callable[[Tensor, Tensor, Tensor], Tensor]

_UNITS = 128
_BLOCKS = 32
_LUMINANCE = (0.30, 0.59, 0.11)
_PAPER = (0.985, 0.975, 0.95)
_GRAPHITE = (0.20, 0.20, 0.23)


def stylise(images: Tensor, masks: Tensor, style: Tensor, seed: Tensor) -> Tensor:
    """Each picture in its style. Photos come back as they are.

    Args:
        images: ``(n, 3, s, s)`` in 0 to 1.
        masks: ``(n, 1, s, s)`` in 0 to 1: where the toy is.
        style: ``(n,)``, index into ``words.STYLES``.
        seed: ``(n,)`` int64.
    """
    out = images
    for number, name in enumerate(STYLES):
        rows = (style == number).nonzero()[:, 0]
        if name == "photo" or not len(rows):
            continue
        out = out.clone() if out is images else out
        out[rows] = _PAINTERS[name](images[rows], masks[rows], seed[rows][:, None]).clamp(0, 1)
    return out


def _pencil(images: Tensor, masks: Tensor, seed: Tensor) -> Tensor:
    """Graphite lines and hatching on paper, the toy lightly coloured in."""
    x, y = _coordinates(images)
    reach = max(1, round(images.shape[-1] / _UNITS))
    edges = _edges(images, reach).amax(1, keepdim=True)
    outline = _edges(masks, reach)
    line = torch.maximum(smoothstep(0.10, 0.75, edges) * (0.55 + 0.35 * masks), smoothstep(0.10, 0.60, outline) * 0.95)
    pressure = 0.62 + 0.5 * _as_picture(fbm(x * 0.07, y * 0.07, seed, 2), images)
    tone = (1 - _luminance(images)) * (0.62 + 0.38 * masks)
    wobble = 2.2 * _as_picture(value_noise(x * 0.06, y * 0.06, seed + 5), images)
    across, along = _as_picture(x + y, images), _as_picture(x - y, images)
    hatching = _hatch(across * (2 * math.pi / 6.2) + wobble, tone * 1.15 - 0.12)
    crossed = _hatch(along * (2 * math.pi / 6.2) + wobble, tone * 1.35 - 0.72)
    ink = torch.maximum(line * pressure, torch.maximum(hatching, crossed) * 0.46 * pressure + tone * 0.13)
    paper, graphite = _column(_PAPER, images), _column(_GRAPHITE, images)
    sheet = paper + (images - paper) * (0.34 * masks)
    lead = graphite + (images * 0.7 - graphite) * (0.35 * masks)
    return sheet + (lead - sheet) * ink.clamp(0, 1)


def _hatch(phase: Tensor, darkness: Tensor) -> Tensor:
    """Soft parallel strokes that grow wider with the darkness."""
    wave = 0.5 + 0.5 * torch.sin(phase)
    return smoothstep(0.0, 0.45, wave - 1 + darkness.clamp(0, 1))


def _pixel_art(images: Tensor, masks: Tensor, seed: Tensor) -> Tensor:
    """32 x 32 squares of few colours, the toy in a dark outline. Squares show toy or background, never a blend."""
    toy = F.adaptive_avg_pool2d(masks, _BLOCKS)
    toy_color = F.adaptive_avg_pool2d(images * masks, _BLOCKS) / toy.clamp(min=1e-3)
    rest_color = F.adaptive_avg_pool2d(images * (1 - masks), _BLOCKS) / (1 - toy).clamp(min=1e-3)
    inside = (toy > 0.45).float()
    blocks = torch.where(inside > 0, toy_color, rest_color)
    around = torch.maximum(F.max_pool2d(inside, (3, 1), 1, (1, 0)), F.max_pool2d(inside, (1, 3), 1, (0, 1))) - inside
    grey = _luminance(blocks)
    blocks = (grey * 8).round() / 8 + ((blocks - grey) * 1.12 * 10).round() / 10
    blocks = blocks * (1 - 0.55 * around)
    return F.interpolate(blocks.clamp(0, 1), size=images.shape[-2:], mode="nearest")


def _watercolor(images: Tensor, masks: Tensor, seed: Tensor) -> Tensor:
    """Flat washes with wavering, darker edges, pigment that gathers, and an unpainted rim of paper."""
    x, y = _coordinates(images)
    flowed, painted = _waver(images, masks, x, y, seed)
    washes, contrast = _kuwahara(flowed, max(1, round(2.5 * images.shape[-1] / _UNITS)))
    detail = 0.35 * painted
    color = washes + (flowed - washes) * detail
    pigment = _as_picture(fbm(x * 0.045, y * 0.045, seed + 3, 3), images)
    grain = _as_picture(value_noise(x * 0.21, y * 0.21, seed + 7), images)
    density = (0.62 + 0.55 * pigment) * (0.96 + 0.08 * grain)
    density = density + (0.98 - density) * 0.5 * painted  # the toy keeps its colours
    paper = _column(_PAPER, images)
    color = paper - (paper - color * 0.97 - 0.02) * density.clamp(0, 1.05)
    color = color * (1 - 0.20 * smoothstep(0.05, 0.30, contrast))
    rim = torch.minimum(torch.minimum(x, _UNITS - x), torch.minimum(y, _UNITS - y))
    ragged = _as_picture(rim, images) + 11 * (pigment - 0.5)
    return color + (paper - color) * smoothstep(7.5, 4.0, ragged)


def _waver(images: Tensor, masks: Tensor, x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures and masks with their outlines shifted by up to 1.2 units, as a brush does."""
    shift_x = (value_noise(x * 0.11, y * 0.11, seed + 11) - 0.5) * 2.4
    shift_y = (value_noise(x * 0.11, y * 0.11, seed + 12) - 0.5) * 2.4
    grid = torch.stack([x + shift_x, y + shift_y], -1) * (2 / _UNITS) - 1
    side = images.shape[-1]
    both = torch.cat([images, masks], 1)
    moved = F.grid_sample(both, grid.view(-1, side, side, 2), padding_mode="border", align_corners=False)
    return moved[:, :3], moved[:, 3:]


def _kuwahara(images: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Each pixel takes the mean of the calmest of the four squares that meet in it; and how restless that one still is.

    Source: M. Kuwahara et al., 1976.
    """
    side = images.shape[-1]
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    mean = F.avg_pool2d(padded, radius + 1, 1)
    spread = (F.avg_pool2d(padded * padded, radius + 1, 1) - mean * mean).sum(1, keepdim=True).clamp(min=0)
    corners = [(top, left) for top in (0, radius) for left in (0, radius)]
    best_mean, best_spread = images, torch.full_like(images[:, :1], torch.inf)
    for top, left in corners:
        here = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
        calmer = spread[here] < best_spread
        best_mean = torch.where(calmer, mean[here], best_mean)
        best_spread = torch.where(calmer, spread[here], best_spread)
    return best_mean, torch.sqrt(best_spread)


def _edges(images: Tensor, reach: int) -> Tensor:
    """How fast each channel changes: differences of what lies ``reach`` pixels either side."""
    soft = F.avg_pool2d(F.pad(images, (reach // 2,) * 4, mode="replicate"), 2 * (reach // 2) + 1, 1)
    wide = F.pad(soft, (reach,) * 4, mode="replicate")
    level, upright = wide[:, :, reach:-reach, :], wide[:, :, :, reach:-reach]
    across = level[..., 2 * reach :] - level[..., : -2 * reach]
    along = upright[:, :, 2 * reach :] - upright[:, :, : -2 * reach]
    return torch.sqrt(across * across + along * along)


def _coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """``(1, s * s)`` each: x and y of the pixels in units, from the top left."""
    side = images.shape[-1]
    line = (torch.arange(side, device=images.device, dtype=torch.float32) + 0.5) * (_UNITS / side)
    return line.repeat(side)[None], line.repeat_interleave(side)[None]


def _as_picture(values: Tensor, images: Tensor) -> Tensor:
    """``(b, s * s)`` as ``(b, 1, s, s)``."""
    return values.view(-1, 1, *images.shape[-2:])


def _luminance(images: Tensor) -> Tensor:
    return (images * _column(_LUMINANCE, images)).sum(1, keepdim=True)


def _column(numbers: tuple[float, float, float], images: Tensor) -> Tensor:
    """``(1, 3, 1, 1)``"""
    return torch.tensor(numbers, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)


_PAINTERS: dict[str, Painter] = {"pencil sketch": _pencil, "pixel art": _pixel_art, "watercolor": _watercolor}
