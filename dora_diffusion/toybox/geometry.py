"""Where rays meet toys: hits, surface directions, shadows. One interface, plain torch on a CPU, kernels on a GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from dora_diffusion.toybox import field
from dora_diffusion.toybox.camera import Rays

BOUND_HEIGHT = 0.56  # every toy lies within a ball about this height
BOUND_RADIUS = 0.95
FAR = 1e4
MARCH_STEPS = 48
SHADOW_STEPS = 18
HIT = 0.012
NORMAL_STEP = 0.004

Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Hits:
    """What each ray sees first; all ``(b, n)``. ``ground``: length to the ground, ``FAR`` where it is never met."""

    toy: Tensor  # boolean
    point: Vector  # on the toy, where toy is true
    normal: Vector
    ground: Tensor


def backend(device: torch.device | str) -> ModuleType:
    """``kernels`` on a GPU, ``field`` elsewhere: the same functions."""
    if torch.device(device).type != "cuda":
        return field
    from dora_diffusion.toybox import kernels  # needs Triton, which only GPU builds of torch bring

    return kernels


def where_needed(mask: Tensor, function: Callable[..., Tensor], points: Vector, fields: Tensor, fill: float) -> Tensor:
    """``function(x, y, z, fields)`` where ``mask``, ``fill`` elsewhere; one picture on a CPU computes nothing else."""
    if len(mask) > 1 or mask.is_cuda:
        return torch.where(mask, function(*points, fields), torch.full_like(points[0], fill))
    columns = mask[0].nonzero()[:, 0]
    out = torch.full(mask.shape, fill)
    out[:, columns] = function(*(p.expand_as(mask)[:, columns] for p in points), fields)
    return out


def ground_length(rays: Rays) -> Tensor:
    """``(b, n)`` how far along each ray the ground is; ``FAR`` where it is never met."""
    height, fall = rays.origin[1], rays.direction[1]
    falling = fall < -1e-4
    return torch.where(falling, -height / torch.where(falling, fall, -torch.ones_like(fall)), FAR)


def find_hits(rays: Rays, fields: Tensor) -> Hits:
    """First meeting of every ray with its toy and with the ground."""
    tools = backend(fields.device)
    (ox, oy, oz), (dx, dy, dz) = rays.origin, rays.direction
    ground = ground_length(rays)
    cy = oy - BOUND_HEIGHT
    along = ox * dx + cy * dy + oz * dz
    inside = along * along - (ox * ox + cy * cy + oz * oz - BOUND_RADIUS**2)
    met = inside > 0
    half = inside.clamp(min=0).sqrt()
    start = torch.where(met, (-along - half).clamp(min=0.02), torch.full_like(along, FAR))
    end = torch.where(met, torch.minimum(-along + half, ground), torch.zeros_like(along))
    length = _march(tools, start, end, rays, fields)
    point = (ox + dx * length, oy + dy * length, oz + dz * length)
    reached = met & (length < end)
    toy = reached & (where_needed(reached, tools.distance, point, fields, FAR) < HIT)
    return Hits(toy, point, _normals(tools, toy, point, fields), ground)


def _march(tools: ModuleType, start: Tensor, end: Tensor, rays: Rays, fields: Tensor) -> Tensor:
    """``tools.march``; one picture on a CPU drops the rays that have arrived every few steps."""
    if len(start) > 1 or start.is_cuda:
        return tools.march(start, end, rays.origin, rays.direction, fields, MARCH_STEPS)
    length = start.clone()
    going = (start < end)[0].nonzero()[:, 0]
    stride = 6
    for _ in range(0, MARCH_STEPS, stride):
        if not len(going):
            break
        before, limit = length[:, going], end[:, going]
        directions = tuple(d[:, going] for d in rays.direction)
        after = tools.march(before, limit, rays.origin, directions, fields, stride)
        length[:, going] = after
        going = going[((after != before) & (after < limit))[0]]
    return length


def _normals(tools: ModuleType, toy: Tensor, point: Vector, fields: Tensor) -> Vector:
    """Unit directions away from the surface, by differences over a tetrahedron; straight up off the toy."""
    x, y, z = point
    total = [torch.zeros_like(x) for _ in range(3)]
    for signs in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        sx, sy, sz = (sign * NORMAL_STEP for sign in signs)
        moved = (x + sx, y + sy, z + sz)
        d = where_needed(toy, tools.distance, moved, fields, 0.0)
        total = [t + s * d for t, s in zip(total, signs, strict=True)]
    inverse = torch.rsqrt(total[0] ** 2 + total[1] ** 2 + total[2] ** 2 + 1e-12)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return (
        torch.where(toy, total[0] * inverse, zero),
        torch.where(toy, total[1] * inverse, one),
        torch.where(toy, total[2] * inverse, zero),
    )


def soft_shadow(mask: Tensor, point: Vector, light: Vector, fields: Tensor) -> Tensor:
    """``(b, n)`` 0 to 1 at ``point``; 1 where ``mask`` is false and where the light's way misses the bounding ball."""
    tools = backend(fields.device)
    x, y, z = point
    (lx, ly, lz), cy = light, y - BOUND_HEIGHT
    along = x * lx + cy * ly + z * lz
    near = mask & (along * along - (x * x + cy * cy + z * z - 1.1) > 0)

    def lit(px: Tensor, py: Tensor, pz: Tensor, table: Tensor) -> Tensor:
        return tools.shadow((px, py, pz), light, table, SHADOW_STEPS)

    value = where_needed(near, lit, point, fields, 1.0)
    return value * value * (3 - 2 * value)


def occlusion(mask: Tensor, point: Vector, normal: Vector, fields: Tensor) -> Tensor:
    """``(b, n)`` share of the sky that is seen from ``point``, from two looks along the normal."""
    tools = backend(fields.device)
    hidden = torch.zeros_like(point[0])
    for reach, weight in ((0.05, 5.5), (0.16, 2.0)):
        (px, py, pz), (nx, ny, nz) = point, normal
        ahead = (px + nx * reach, py + ny * reach, pz + nz * reach)
        free = where_needed(mask, tools.distance, ahead, fields, FAR)
        hidden = hidden + weight * (reach - free).clamp(min=0)
    return (1 - hidden).clamp(0.25, 1.0)


def nearest_part(mask: Tensor, point: Vector, fields: Tensor) -> tuple[Tensor, Vector]:
    """Index of the part at each point ``(b, n)`` and the points in its scaled local axes; zeros off ``mask``."""
    tools = backend(fields.device)
    if len(mask) > 1 or mask.is_cuda:
        which, *local = tools.nearest_part(*point, fields)
        return which, tuple(local)
    columns = mask[0].nonzero()[:, 0]
    found = tools.nearest_part(*(p[:, columns] for p in point), fields)
    which = torch.zeros(mask.shape, dtype=torch.long)
    which[:, columns] = found[0]
    local = [torch.zeros(mask.shape) for _ in range(3)]
    for full, some in zip(local, found[1:], strict=True):
        full[:, columns] = some
    return which, (local[0], local[1], local[2])
