"""What a scene is, and the random choices of one image of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dora_diffusion.toybox.noise import hashed

Triple = tuple[float, float, float]
GroundPainter = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
BackPainter = Callable[[Tensor, Tensor, Tensor], Tensor]

SHOULDER = 1.9  # of the renderer's tone curve, display = (1 - exp(-SHOULDER light)) / (1 - exp(-SHOULDER))
_RANGE = 1 - math.exp(-SHOULDER)


def light_of(display: Tensor) -> Tensor:
    """The light that the renderer's tone curve shows as the colour ``display``; both 0 to 1."""
    return torch.log1p(display.clamp(0, 1) * -_RANGE) * (-1 / SHOULDER)


@dataclass(frozen=True)
class Scene:
    """A place around the toy: what it looks like and how it is lit. All colours are painted as they shall be seen.

    Attributes:
        paint_ground: of (x, z, distance from the toy, seed), display colours. The ground is y = 0 in the frame of the
            camera: x to the right, z towards it, the toy in the middle.
        paint_back: of (u, v, seed). Open scenes: u is how far right, v how far above the horizon, as slopes. Scenes
            with a wall: x and height on the plane ``WALL_Z``.
        key_color, key_strength: the lamp or sun.
        sky, bounce: light from all of above and of below.
        wall: whether the back is a wall at ``WALL_Z`` and not infinitely far.
        haze_color, haze: the light that the ground of open scenes fades to and how fast (per unit of distance).
    """

    paint_ground: GroundPainter
    paint_back: BackPainter
    key_color: Triple = (1.0, 1.0, 1.0)
    key_strength: float = 0.8
    sky: Triple = (0.45, 0.48, 0.52)
    bounce: Triple = (0.30, 0.30, 0.30)
    wall: bool = False
    haze_color: Triple = (0.8, 0.8, 0.8)
    haze: float = 0.0

    def ground(self, x: Tensor, z: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
        """Albedo ``(b, n, 3)``, 0 to 1, of ground points ``(b, n)``; ``seed (b, 1)`` int64, one an image."""
        return light_of(self.paint_ground(x, z, distance, seed))

    def back(self, u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
        """Light ``(b, n, 3)``, 0 to 1, from the back; arguments as in ``ground``."""
        return light_of(self.paint_back(u, v, seed))


WALL_Z = -1.05


class Luck:
    """The random choices of each image. A choice has a number of its own, the ``place``: ground and back of a scene
    that ask for the same place get the same answer.

    Args:
        seed: ``(b, 1)`` int64.
    """

    def __init__(self, seed: Tensor):
        self._seed = seed

    def number(self, place: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """``(b, 1)`` between ``low`` and ``high``."""
        return low + (high - low) * hashed(torch.full_like(self._seed, place), 77, self._seed)

    def yes(self, place: int, chance: float = 0.5) -> Tensor:
        """``(b, 1)``: 1 with this chance, else 0."""
        return (self.number(place) < chance).float()

    def color(self, place: int, *colors: Triple) -> Tensor:
        """``(b, 1, 3)``: somewhere on the way through ``colors``, every stretch as likely."""
        table = torch.tensor(colors, device=self._seed.device)
        at = self.number(place) * (len(colors) - 1)
        first = at.long().clamp(max=len(colors) - 2)
        return table[first] + (table[first + 1] - table[first]) * (at - first).unsqueeze(-1)

    def one_of(self, place: int, *colors: Triple) -> Tensor:
        """``(b, 1, 3)``: exactly one of ``colors``."""
        return pick(colors, self.number(place))

    def side(self, place: int) -> Tensor:
        """``(b, 1)``: -1 or 1."""
        return self.yes(place) * 2 - 1


def pick(colors: tuple[Triple, ...], number: Tensor) -> Tensor:
    """``(..., 3)``: the colours of random numbers ``(...)`` in 0 to 1."""
    table = torch.tensor(colors, device=number.device)
    return table[(number * len(colors)).long().clamp(max=len(colors) - 1)]
