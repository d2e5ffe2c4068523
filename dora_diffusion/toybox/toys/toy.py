"""What a class of toys is, and two small tools to write one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dora_diffusion.toybox.parts import Number, Parts, Shape

UPRIGHT = (90.0, 0.0, 0.0)  # turns a ring or a lying disc so that its axis points to the front
UPSIDE_DOWN = (180.0, 0.0, 0.0)  # turns a part whose top is cut off into a dome


@dataclass(frozen=True)
class Toy:
    """One class of toys.

    Attributes:
        build: adds the parts of ``n`` instances whose shapes are given.
        facing: azimuth in degrees that the camera likes; 0 looks from +z, 90 from +x.
        sideways: patterns run along x, not around the upright axis.
        height: of a typical instance.
        sticker: x and y of the middle of the place on the front (+z) where an emblem sits, and how far it may move
            along x and y.
    """

    build: Callable[[Parts, Shape], None]
    height: float
    sticker: tuple[float, float, float, float]
    facing: float = 0.0
    sideways: bool = False


def kinds(shape: Shape, place: int, count: int) -> list[Tensor]:
    """``count`` boolean ``(n,)`` masks that share all instances evenly by one of their shape numbers."""
    number = (shape.between(place, 0.0, float(count))).floor().clamp(max=count - 1)
    return [number == kind for kind in range(count)]


def either(chosen: Tensor, yes: Number, no: Number) -> Tensor:
    """``(n,)``: ``yes`` for the chosen instances, ``no`` for the others."""
    return torch.where(chosen, torch.as_tensor(yes), torch.as_tensor(no))
