"""Every class of toys, over random shapes: it stands, holds together, fits, and shows all three of its colours."""

import math

import pytest
import torch
from torch import Tensor

from dora_diffusion.toybox import field
from dora_diffusion.toybox.geometry import BOUND_HEIGHT, BOUND_RADIUS
from dora_diffusion.toybox.parts import MAX_PARTS, NO_LIMIT, Parts, PartTable, Role, Shape, stretched
from dora_diffusion.toybox.toys import TOYS
from dora_diffusion.toybox.toys.toy import kinds
from dora_diffusion.toybox.words import CLASSES

STRETCH = (0.82, 1.2)
EMBLEM = 0.14  # radius, half way between the smallest and the usual
VIEWS = (-50.0, 0.0, 50.0)  # azimuths about the front


def build(name: str, count: int, seed: int = 3) -> PartTable:
    """``count`` toys with random shapes."""
    parts = Parts(count)
    TOYS[name].build(parts, Shape(torch.rand(count, 8, generator=torch.Generator().manual_seed(seed))))
    return parts.table()


def grid(step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points around a toy: x, y, z, each ``(nx, ny, nz)``."""
    across, up = torch.arange(-0.86, 0.861, step), torch.arange(-0.1, 1.4, step)
    x, y, z = torch.meshgrid(across, up, across, indexing="ij")
    return x, y, z


def distances(table: PartTable, points: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """``(count, nx, ny, nz)`` distances to the toys."""
    x, y, z = (p.reshape(1, -1) for p in points)
    rows = [field.distance(x, y, z, fields[None]) for fields in table.fields]
    return torch.cat(rows).reshape(-1, *points[0].shape)


def seen_roles(table: PartTable, azimuth: float, side: int = 40) -> Tensor:
    """``(count, side * side)`` the role each ray meets, -1 for none: a flat camera, a little above the horizon."""
    turn, tilt = math.radians(azimuth), math.radians(8)
    forward = (-math.sin(turn) * math.cos(tilt), -math.sin(tilt), -math.cos(turn) * math.cos(tilt))
    right = (math.cos(turn), 0.0, -math.sin(turn))
    upwards = (-math.sin(turn) * math.sin(tilt), math.cos(tilt), -math.cos(turn) * math.sin(tilt))
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    u, v = line.repeat(side) * 0.85, -line.repeat_interleave(side) * 0.85
    middle = (0.0, BOUND_HEIGHT, 0.0)
    start = [(m - 2 * f + r * u + w * v)[None] for m, f, r, w in zip(middle, forward, right, upwards, strict=True)]
    direction = tuple(torch.full_like(start[0], f) for f in forward)
    seen = []
    for fields, roles in zip(table.fields[:, None], table.roles, strict=True):
        first = torch.full_like(start[0], 0.9)
        length = field.march(first, torch.full_like(first, 3.2), tuple(start), direction, fields, 44)
        x, y, z = (s + d * length for s, d in zip(start, direction, strict=True))
        hit = field.distance(x, y, z, fields) < 0.012
        seen.append(torch.where(hit, roles[field.nearest_part(x, y, z, fields)[0]], -1))
    return torch.cat(seen)


def share(seen: Tensor, *roles: Role) -> Tensor:
    """``(count,)`` how much of each silhouette wears one of ``roles``."""
    wears = sum((seen == role).sum(1) for role in roles)
    return torch.as_tensor(wears / (seen >= 0).sum(1))


def test_toys_are_the_classes_in_their_order() -> None:
    assert tuple(TOYS) == CLASSES


@pytest.mark.parametrize("name", CLASSES)
def test_builds_with_all_roles_within_the_part_limit(name: str) -> None:
    table = build(name, 50)
    assert table.fields.shape[:2] == (50, MAX_PARTS)
    assert torch.isfinite(table.fields).all()
    assert {Role.MAIN, Role.SECOND, Role.THIRD} <= {Role(role) for role in table.roles[0].tolist()}
    walls_and_edges = table.fields[..., [17, 20]]
    assert ((walls_and_edges > 0) & (walls_and_edges <= NO_LIMIT)).all()


@pytest.mark.parametrize("name", CLASSES)
def test_stands_on_the_ground_in_one_piece(name: str) -> None:
    step = 0.035
    points = grid(step)
    table = build(name, 50)
    lowest = distances(table, grid_near_ground())
    assert (lowest.flatten(1) < 0.02).any(1).all(), "nothing touches the ground"
    solid = distances(build(name, 8), points) < step * 0.6
    reached = solid & (points[1] < 0.05)
    for _ in range(90):
        grown = torch.nn.functional.max_pool3d(reached[:, None].float(), 3, 1, 1)[:, 0] > 0
        reached, before = grown & solid, reached
        if torch.equal(reached, before):
            break
    assert torch.equal(reached, solid), f"{int((solid & ~reached).sum())} points float"
    assert not (distances(table, grid(0.09)) < -0.01)[:, :, :1].any(), "it sinks into the ground"


def grid_near_ground() -> tuple[Tensor, Tensor, Tensor]:
    """Points of the ground itself."""
    across = torch.arange(-0.66, 0.661, 0.03)
    x, z = torch.meshgrid(across, across, indexing="ij")
    return x[:, None], torch.zeros_like(x)[:, None], z[:, None]


@pytest.mark.parametrize("name", CLASSES)
def test_fits_the_bounding_ball_when_stretched(name: str) -> None:
    x, y, z = grid(0.05)
    corners = [torch.hypot(torch.hypot(x, z) * STRETCH[1], y * s - BOUND_HEIGHT) for s in STRETCH]
    outside = torch.maximum(*corners) > BOUND_RADIUS
    inside_toy = distances(build(name, 50), (x[outside], y[outside], z[outside])) < 0
    assert not inside_toy.any()
    tall = stretched(build(name, 4), torch.full((4, 3), STRETCH[1]))
    assert (tall.fields[..., 1] < 1.5).all()


@pytest.mark.parametrize("name", CLASSES)
def test_shows_all_three_colors_from_the_front(name: str) -> None:
    table = build(name, 10)
    for azimuth in VIEWS:
        seen = seen_roles(table, azimuth + TOYS[name].facing)
        main = share(seen, Role.MAIN, Role.MAIN_PLAIN)
        second, third = share(seen, Role.SECOND), share(seen, Role.THIRD)
        assert (main > torch.maximum(second, third)).all()
        assert second.min() >= 0.06
        assert third.min() >= 0.06


@pytest.mark.parametrize("name", CLASSES)
def test_has_room_for_an_emblem_on_the_front(name: str) -> None:
    x, y, reach_x, reach_y = TOYS[name].sticker
    line = torch.linspace(-EMBLEM, EMBLEM, 7)
    across, up = (p.flatten() for p in torch.meshgrid(line, line, indexing="ij"))
    disc = torch.hypot(across, up) <= EMBLEM
    for side in (-1, 1):
        px, py = (x + reach_x * side + across[disc])[None], (y + reach_y * side + up[disc])[None]
        assert emblem_share(build(name, 12), px, py) > 0.9


def emblem_share(table: PartTable, x: Tensor, y: Tensor) -> float:
    """How much of an emblem lies on the first two colours and faces the front."""
    start, direction = (x, y, torch.full_like(x, 1.2)), (torch.zeros_like(x),) * 2 + (-torch.ones_like(x),)
    good = []
    for fields, roles in zip(table.fields[:, None], table.roles, strict=True):
        first = torch.zeros_like(x)
        length = field.march(first, torch.full_like(x, 1.6), start, direction, fields, 60)
        point = (x, y, start[2] - length)
        slope = field.distance(x, y, point[2] + 0.004, fields) - field.distance(x, y, point[2] - 0.004, fields)
        role = roles[field.nearest_part(*point, fields)[0]]
        worn = (role <= Role.MAIN_PLAIN) & (role != Role.THIRD)
        good.append(worn & (slope / 0.008 > 0.2) & (field.distance(*point, fields) < 0.012))
    return float(torch.stack(good).float().mean())


def test_kinds_share_all_toys_evenly() -> None:
    shape = Shape(torch.linspace(0, 1, 301)[:, None].expand(-1, 8))
    masks = torch.stack(kinds(shape, 2, 3))
    assert (masks.sum(0) == 1).all()
    assert masks.sum(1).tolist() == pytest.approx([100, 100, 101], abs=1)
