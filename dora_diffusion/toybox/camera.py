"""Rays of a pinhole camera that looks at a toy from its front."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dora_diffusion.toybox.draws import Views

HALF_ANGLE_TANGENT = 0.36


@dataclass(frozen=True)
class Rays:
    """One ray a pixel.

    ``origin``: three ``(b, 1)``; ``direction``: three ``(b, n)``, unit length; ``azimuth (b, 1)`` in radians;
    ``screen_x, screen_y (n,)`` in -1 to 1; ``right, forward``: the camera's axes on the ground, two ``(b, 1)`` each.
    """

    origin: tuple[Tensor, Tensor, Tensor]
    direction: tuple[Tensor, Tensor, Tensor]
    azimuth: Tensor
    screen_x: Tensor
    screen_y: Tensor
    right: tuple[Tensor, Tensor]
    forward: tuple[Tensor, Tensor]

    def take(self, rows: Tensor) -> "Rays":
        """The rays of some of the pictures."""
        ox, oy, oz = (value[rows] for value in self.origin)
        dx, dy, dz = (value[rows] for value in self.direction)
        (rx, rz), (fx, fz) = ([value[rows] for value in pair] for pair in (self.right, self.forward))
        azimuth = self.azimuth[rows]
        return Rays((ox, oy, oz), (dx, dy, dz), azimuth, self.screen_x, self.screen_y, (rx, rz), (fx, fz))


def radians(degrees: Tensor, device: torch.device | str) -> Tensor:
    """``(b, 1)`` radians of a column of ``Views`` in degrees."""
    return (degrees.to(device).float() * (math.pi / 180))[:, None]


def rays(views: Views, side: int, device: torch.device | str) -> Rays:
    """``side * side`` rays for each view, row by row from the top left."""
    azimuth, elevation, roll = (radians(a, device) for a in (views.azimuth, views.elevation, views.roll))
    distance, shift_x, aim_y = (v.to(device).float()[:, None] for v in (views.distance, views.shift_x, views.aim_y))
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    origin = (
        sin_a * cos_e * distance + cos_a * shift_x,
        sin_e * distance + aim_y,
        cos_a * cos_e * distance - sin_a * shift_x,
    )
    line = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * 2 - 1
    screen_x, screen_y = line.repeat(side), -line.repeat_interleave(side)
    px = (screen_x * roll.cos() - screen_y * roll.sin()) * HALF_ANGLE_TANGENT
    py = (screen_x * roll.sin() + screen_y * roll.cos()) * HALF_ANGLE_TANGENT
    dx = -sin_a * cos_e + px * cos_a - py * sin_a * sin_e
    dy = -sin_e + py * cos_e
    dz = -cos_a * cos_e - px * sin_a - py * cos_a * sin_e
    inverse = torch.rsqrt(dx * dx + dy * dy + dz * dz)
    return Rays(
        origin=origin,
        direction=(dx * inverse, dy * inverse, dz * inverse),
        azimuth=azimuth,
        screen_x=screen_x,
        screen_y=screen_y,
        right=(cos_a, -sin_a),
        forward=(-sin_a, -cos_a),
    )
