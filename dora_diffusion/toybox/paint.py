"""What colour a toy is at a point: roles, odd sides, patterns, patches and emblems."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dora_diffusion.toybox.draws import Instances
from dora_diffusion.toybox.emblems import emblem_regions
from dora_diffusion.toybox.geometry import Vector
from dora_diffusion.toybox.parts import (
    FAR_BELOW,
    FIELDS,
    FIXED_COLORS,
    MAX_PARTS,
    Parts,
    PartTable,
    Role,
    Shape,
    stretched,
)
from dora_diffusion.toybox.toys import TOYS
from dora_diffusion.toybox.words import CLASSES, PALETTE

FRONT = 0.2  # how much of a surface's direction must point to the front to carry a sticker
PATCH_ASPECT = 0.8


@dataclass(frozen=True)
class Toys:
    """``b`` toys, built and ready to be seen, on one device."""

    fields: Tensor  # (b, k, FIELDS)
    roles: Tensor  # (b, k)
    scales: Tensor  # (b, k, 3)
    colors: Tensor  # (b, roles, 3)
    sideways: Tensor  # (b, 1) patterns run along x
    pattern: Tensor  # (b, 1)
    pitch: Tensor  # (b, 1)
    emblem: Tensor  # (b, 1)
    emblem_frame: Tensor  # (b, 3): x, y, radius
    patch_frame: Tensor  # (b, 3): x, y, radius
    odd: Tensor  # (b, 1)
    finish: Tensor  # (b, 1)
    split_height: Tensor  # (b, 1) where two-tone changes

    def take(self, rows: Tensor) -> "Toys":
        """Some of them, without the places in the part tables that none of these uses."""
        some = Toys(**{name: value[rows] for name, value in vars(self).items()})
        used = (some.fields[:, :, 1] > FAR_BELOW / 2).any(0)
        return replace(some, fields=some.fields[:, used], roles=some.roles[:, used], scales=some.scales[:, used])


def build(instances: Instances, device: torch.device | str) -> Toys:
    """All parts of all toys, on ``device``."""
    count = len(instances)
    fields = torch.zeros(count, MAX_PARTS, FIELDS)
    roles = torch.zeros(count, MAX_PARTS, dtype=torch.long)
    scales = torch.ones(count, MAX_PARTS, 3)
    stickers = torch.zeros(count, 4)
    sideways, heights = torch.zeros(count, 1), torch.zeros(count, 1)
    for number in instances.kind.unique().tolist():
        toy = TOYS[CLASSES[number]]
        rows = (instances.kind == number).nonzero()[:, 0]
        parts = Parts(len(rows))
        toy.build(parts, Shape(instances.shape[rows]))
        table: PartTable = stretched(parts.table(), instances.stretch[rows])
        fields[rows], roles[rows], scales[rows] = table.fields, table.roles, table.scales
        stickers[rows] = torch.tensor(toy.sticker)
        sideways[rows], heights[rows] = float(toy.sideways), float(toy.height)
    palette = torch.tensor(list(PALETTE.values()))
    own = palette[instances.colors]  # (b, 3, 3)
    fixed = torch.tensor([FIXED_COLORS[role] for role in Role if role in FIXED_COLORS]).expand(count, -1, -1)
    middle, spread = stickers[:, :2], stickers[:, 2:]
    flat_stretch = instances.stretch[:, :2]
    emblem = (middle + spread * instances.emblem_place) * flat_stretch
    patch = (middle + (spread + 0.16) * instances.patch[:, :2]) * flat_stretch
    made = Toys(
        fields=fields,
        roles=roles,
        scales=scales,
        colors=torch.cat([own, own[:, :1], fixed], 1),
        sideways=sideways,
        pattern=instances.pattern[:, None],
        pitch=instances.pitch[:, None].float(),
        emblem=instances.emblem[:, None],
        emblem_frame=torch.cat([emblem, instances.emblem_size[:, None]], 1),
        patch_frame=torch.cat([patch, instances.patch[:, 2:]], 1),
        odd=instances.odd[:, None],
        finish=instances.finish[:, None],
        split_height=heights * instances.stretch[:, 1:2] * 0.48,
    )
    return Toys(**{name: value.to(device) for name, value in vars(made).items()})


@dataclass(frozen=True)
class Surface:
    """Paint at each point: ``albedo (b, n, 3)``, the rest ``(b, n)`` booleans."""

    albedo: Tensor
    glows: Tensor
    metal: Tensor


def paint(toys: Toys, toy: Tensor, part: Tensor, local: Vector, point: Vector, normal: Vector) -> Surface:
    """The paint where rays have met toys.

    Args:
        toy: ``(b, n)`` boolean.
        part, local: from ``geometry.nearest_part``.
        point, normal: of the hits.
    """
    role = toys.roles.gather(1, part)
    role = _odd_roles(toys, role, part, point)
    on_pattern = _pattern(toys, toys.scales, part, local, point, normal) & (role == Role.MAIN)
    role = torch.where(on_pattern, int(Role.SECOND), role)
    front = (normal[2] > FRONT) & (role <= Role.MAIN_PLAIN)
    px = (point[0] - toys.patch_frame[:, 0:1]) / toys.patch_frame[:, 2:].clamp(min=1e-3)
    py = (point[1] - toys.patch_frame[:, 1:2]) / toys.patch_frame[:, 2:].clamp(min=1e-3)
    patch = (px * px + py * py * PATCH_ASPECT < 1) & front & (toys.patch_frame[:, 2:] > 0)
    role = torch.where(patch, int(Role.THIRD), role)
    size = toys.emblem_frame[:, 2:]
    sign, outlined = emblem_regions(
        (point[0] - toys.emblem_frame[:, 0:1]) / size, (point[1] - toys.emblem_frame[:, 1:2]) / size, toys.emblem
    )
    third = toys.colors[:, int(Role.THIRD)]
    outline = torch.where(third.mean(1, keepdim=True) > 0.75, int(Role.BLACK), int(Role.WHITE))
    role = torch.where(outlined & front, outline, role)
    role = torch.where(sign & front, int(Role.THIRD), role)
    albedo = toys.colors.gather(1, role[..., None].expand(-1, -1, 3))
    return Surface(albedo, toy & (role == Role.GLOW), toy & (role == Role.METAL))


def _odd_roles(toys: Toys, role: Tensor, part: Tensor, point: Vector) -> Tensor:
    """On odd toys the left one of two mirrored parts (the near one, where they stand in depth) wears another colour."""
    mirrored_x = toys.fields[:, :, 23].gather(1, part) > 0.5
    mirrored_z = toys.fields[:, :, 24].gather(1, part) > 0.5
    left = (mirrored_x & (point[0] < 0)) | (mirrored_z & ~mirrored_x & (point[2] > 0))
    swapped = torch.where(role == Role.THIRD, int(Role.SECOND), int(Role.THIRD))
    return torch.where(left & toys.odd & (role <= Role.MAIN_PLAIN), swapped, role)


def _pattern(toys: Toys, scales: Tensor, part: Tensor, local: Vector, point: Vector, normal: Vector) -> Tensor:
    """``(b, n)`` where the pattern shows the second colour."""
    unit = [scales[..., axis].gather(1, part) for axis in range(3)]
    lx, ly, lz = (value * u for value, u in zip(local, unit, strict=True))
    x, y, z = point
    pitch, sideways = toys.pitch, toys.sideways > 0.5
    # Around an upright part: angle and height; flat lids and sideways toys: the plane they face.
    turn = torch.atan2(lx, lz) / (2 * math.pi)
    lid = normal[1].abs() > 0.85
    u = torch.where(lid, lx * 4.2, turn * (2 * pitch + 8))
    v = torch.where(lid, lz * 4.2, ly * (4.6 + pitch))
    faces_up = normal[1].abs() > torch.maximum(normal[0].abs(), normal[2].abs())
    faces_side = normal[2].abs() > normal[0].abs()
    u = torch.where(sideways, torch.where(faces_up | faces_side, x, z) * (5 + pitch), u)
    v = torch.where(sideways, torch.where(faces_up, z, y) * (5 + pitch) + 0.3, v)
    band = torch.where(sideways, x * (3.2 + pitch), y * (4.2 + 1.3 * pitch))
    across, up = u - torch.floor(u) - 0.5, v - torch.floor(v) - 0.5
    checks = torch.floor(u) + torch.floor(v)
    second = {
        1: band - torch.floor(band) < 0.5,
        2: across * across + up * up < 0.085,
        3: checks - 2 * torch.floor(checks / 2) > 0.5,
        4: torch.where(sideways, x > 0, y > toys.split_height),
    }
    shown = torch.zeros_like(second[1])
    for number, region in second.items():
        shown = shown | ((toys.pattern == number) & region)
    return shown
