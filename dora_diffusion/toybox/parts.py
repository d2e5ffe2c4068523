"""Toys as lists of parts. Every part is one and the same solid with other numbers, so that one distance function serves
all classes and a batch may mix them.

The solid is an extruded rounded rectangle with rounded edges, optionally tapered, hollow or cut off above a height:
box, ball, cone, can, capsule, tube and ring are special cases. Lengths are in units of about one toy's height; y points
up, the ground is y = 0, and a toy shows its front (its side, for vehicles and shoes) to +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing import Unpack  # new in Python 3.11

MAX_PARTS = 16
FAR_BELOW = -60.0  # where a part goes that an instance does not have
NO_LIMIT = 9.0

# Fields of one part, in order: position 3, matrix from world to scaled local axes 9, smallest scale, core half width
# and depth, corner radius, half height, edge radius, taper slope, its cosine, wall thickness, cut height, blend, mirror
# x, mirror z.
FIELDS = 25

Number = float | Tensor
Triple = tuple[Number, Number, Number]


class Options(TypedDict, total=False):
    """The keywords of ``Parts.solid`` that every kind of part takes."""

    taper: Number
    cut: Number
    scale: Triple
    turn: Triple
    blend: Number
    mirror_x: bool
    mirror_z: bool
    present: Tensor | None


class Role(IntEnum):
    """What a part is painted with: one of the instance's three colours, or a colour of its own."""

    MAIN = 0  # carries the pattern
    SECOND = 1
    THIRD = 2
    MAIN_PLAIN = 3  # the main colour, never the pattern
    WHITE = 4
    BLACK = 5
    WOOD = 6
    CREAM = 7
    GLOW = 8
    METAL = 9
    LEAF = 10
    ORANGE = 11


FIXED_COLORS = {
    Role.WHITE: (0.95, 0.95, 0.94),
    Role.BLACK: (0.05, 0.05, 0.06),
    Role.WOOD: (0.42, 0.24, 0.12),
    Role.CREAM: (0.95, 0.88, 0.74),
    Role.GLOW: (1.0, 0.86, 0.45),
    Role.METAL: (0.62, 0.64, 0.68),
    Role.LEAF: (0.16, 0.52, 0.18),
    Role.ORANGE: (0.98, 0.50, 0.06),
}


class Shape:
    """The eight free numbers of each instance of one class, read by name of the place: ``shape.between(0, 0.2, 0.4)``.

    Args:
        numbers: ``(n, 8)`` in 0 to 1.
    """

    def __init__(self, numbers: Tensor):
        self.numbers = numbers

    def between(self, place: int, low: float, high: float) -> Tensor:
        """``(n,)`` lengths or angles between ``low`` and ``high``."""
        return low + (high - low) * self.numbers[:, place]

    def above(self, place: int, threshold: float) -> Tensor:
        """``(n,)`` booleans: which instances have an optional part."""
        return self.numbers[:, place] > threshold


@dataclass(frozen=True)
class PartTable:
    """``n`` toys: ``fields (n, MAX_PARTS, FIELDS)``, ``roles (n, MAX_PARTS)``, and ``scales (n, MAX_PARTS, 3)``, world
    lengths of a unit of the scaled local axes.
    """

    fields: Tensor
    roles: Tensor
    scales: Tensor


class Parts:
    """Collects the parts of ``count`` toys of one class; every number may be a float or a ``(count,)`` tensor."""

    def __init__(self, count: int):
        self.count = count
        self._fields: list[Tensor] = []
        self._roles: list[int] = []
        self._scales: list[Tensor] = []

    def solid(
        self,
        position: Triple,
        width: Number,
        height: Number,
        depth: Number | None = None,
        *,
        role: Role,
        corner: Number | None = None,
        edge: Number = 0.02,
        taper: Number = 0.0,
        wall: Number = NO_LIMIT,
        cut: Number = NO_LIMIT,
        scale: Triple = (1.0, 1.0, 1.0),
        turn: Triple = (0.0, 0.0, 0.0),
        blend: Number = 0.0,
        mirror_x: bool = False,
        mirror_z: bool = False,
        present: Tensor | None = None,
    ) -> None:
        """Add one part.

        Args:
            position: centre.
            width, height, depth: half extents along the local axes; depth defaults to width.
            role: its paint.
            corner: corner radius of the rectangle seen from above; the smaller half extent (a round part) by default.
            edge: radius of the rounding between side and lid.
            taper: how much narrower the top is than the middle (the bottom is wider by as much).
            wall: half thickness of the wall of a hollow part.
            cut: nothing above this local height.
            scale: stretches the finished part along its own axes.
            turn: degrees about x, then y, then z.
            blend: how softly it melts into neighbours; both must have it.
            mirror_x, mirror_z: a second copy on the other side.
            present: ``(count,)`` booleans, which toys have it.
        """
        w, h = self._number(width), self._number(height)
        d = w if depth is None else self._number(depth)
        radius = torch.minimum(w, d) if corner is None else self._number(corner)
        sizes = torch.stack([self._number(s) for s in scale], -1)
        matrix = _to_local(*(self._number(a) for a in turn)) / sizes[:, :, None]
        x, y, z = (self._number(p) for p in position)
        if present is not None:
            y = torch.where(present, y, torch.full_like(y, FAR_BELOW))
        slope = self._number(taper) / h
        columns = [x, y, z, *matrix.flatten(1).unbind(1), sizes.amin(1), w - radius, d - radius, radius, h]
        columns += [self._number(edge), slope, torch.rsqrt(1 + slope * slope), self._number(wall), self._number(cut)]
        columns += [self._number(blend), self._number(float(mirror_x)), self._number(float(mirror_z))]
        self._fields.append(torch.stack(columns, -1))
        self._roles.append(int(role))
        self._scales.append(sizes)

    def ball(self, position: Triple, radius: Number, *, role: Role, **options: Unpack[Options]) -> None:
        """A ball (an ellipsoid with ``scale``); keywords as in ``solid``."""
        self.solid(position, radius, radius, role=role, edge=radius, **options)

    def can(
        self,
        position: Triple,
        radius: Number,
        height: Number,
        *,
        role: Role,
        edge: Number = 0.02,
        wall: Number = NO_LIMIT,
        **options: Unpack[Options],
    ) -> None:
        """An upright round can (a cone with ``taper``, a tube with ``wall``); keywords as in ``solid``."""
        self.solid(position, radius, height, role=role, edge=edge, wall=wall, **options)

    def box(
        self,
        position: Triple,
        width: Number,
        height: Number,
        depth: Number,
        *,
        role: Role,
        edge: Number = 0.03,
        corner: Number | None = None,
        **options: Unpack[Options],
    ) -> None:
        """A box whose corners are as round as its edges unless told otherwise; keywords as in ``solid``."""
        around = edge if corner is None else corner
        self.solid(position, width, height, depth, role=role, edge=edge, corner=around, **options)

    def ring(
        self,
        position: Triple,
        radius: Number,
        thickness: Number,
        *,
        role: Role,
        corner: Number | None = None,
        **options: Unpack[Options],
    ) -> None:
        """A lying ring with a round section of radius ``thickness``; ``turn=(90, 0, 0)`` stands it up,
        a small ``corner`` makes it a square frame.
        """
        r, t = self._number(radius), self._number(thickness)
        self.solid(position, r + t, t, role=role, edge=t, wall=t, corner=corner, **options)

    def table(self) -> PartTable:
        """All parts, padded to ``MAX_PARTS``.

        Raises:
            ValueError: the class has too many parts.
        """
        missing = MAX_PARTS - len(self._roles)
        if missing < 0:
            raise ValueError(f"a toy has at most {MAX_PARTS} parts, this one {len(self._roles)}")
        for _ in range(missing):
            self.ball((0.0, FAR_BELOW, 0.0), 0.01, role=Role.MAIN)
        roles = torch.tensor(self._roles).expand(self.count, -1)
        return PartTable(torch.stack(self._fields, 1), roles, torch.stack(self._scales, 1))

    def _number(self, value: Number) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32).expand(self.count)


def _to_local(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """``(n, 3, 3)``: world to local axes of a part turned by degrees about x, then y, then z."""
    (a, b, c) = (angle * (math.pi / 180) for angle in (x, y, z))
    one, zero = torch.ones_like(a), torch.zeros_like(a)

    def matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    about_x = matrix((one, zero, zero), (zero, a.cos(), -a.sin()), (zero, a.sin(), a.cos()))
    about_y = matrix((b.cos(), zero, b.sin()), (zero, one, zero), (-b.sin(), zero, b.cos()))
    about_z = matrix((c.cos(), -c.sin(), zero), (c.sin(), c.cos(), zero), (zero, zero, one))
    return (about_z @ about_y @ about_x).transpose(1, 2)


def stretched(table: PartTable, stretch: Tensor) -> PartTable:
    """The same toys, each stretched along the world's axes by ``(n, 3)`` factors."""
    fields = table.fields.clone()
    factors = stretch[:, None, :]
    fields[..., 0:3] = fields[..., 0:3] * factors
    matrix = fields[..., 3:12].unflatten(-1, (3, 3)) / factors[..., None, :]
    fields[..., 3:12] = matrix.flatten(-2)
    fields[..., 12] = fields[..., 12] * stretch.amin(1, keepdim=True)
    return PartTable(fields, table.roles, table.scales)
