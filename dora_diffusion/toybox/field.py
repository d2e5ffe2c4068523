"""The distance to a toy, in plain torch: the reference that the GPU kernels of ``kernels.py`` are tested against.

Source: J. C. Hart, "Sphere tracing", The Visual Computer 12 (1996); the solids are exact distance functions of a
rounded extrusion, scaled (a lower bound then), and neighbours melt with the quadratic smooth minimum.
"""

import torch
from torch import Tensor

BLEND_FLOOR = 1e-4
TOUCH = 0.0015
STEP = 0.95
SOFTNESS = 7.0
SHADOW_START = 0.03
SHADOW_STEP = (0.02, 0.18)


def part_distances(x: Tensor, y: Tensor, z: Tensor, fields: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distances to every part, and the points in every part's scaled local axes.

    Args:
        x, y, z: ``(b, n)`` points.
        fields: ``(b, k, FIELDS)``, see ``parts.py``.

    Returns:
        Four ``(b, k, n)`` tensors: distance, local x, y, z.
    """
    f = fields[:, :, None].unbind(-1)  # each (b, k, 1)
    x, y, z = x[:, None], y[:, None], z[:, None]
    px = x + f[23] * (x.abs() - x) - f[0]
    py = y - f[1]
    pz = z + f[24] * (z.abs() - z) - f[2]
    local_x = f[3] * px + f[4] * py + f[5] * pz
    local_y = f[6] * px + f[7] * py + f[8] * pz
    local_z = f[9] * px + f[10] * py + f[11] * pz
    # The rounded rectangle seen from above, narrowed towards the top, hollowed.
    qx, qz = local_x.abs() - f[13], local_z.abs() - f[14]
    outside_x, outside_z = qx.clamp(min=0), qz.clamp(min=0)
    side = torch.sqrt(outside_x * outside_x + outside_z * outside_z) + torch.maximum(qx, qz).clamp(max=0) - f[15]
    side = (side + f[18] * local_y) * f[19]
    side = (side + f[20]).abs() - f[20]
    # The lid, and the rounded edge between them.
    a, c = side + f[17], local_y.abs() - f[16] + f[17]
    outside_a, outside_c = a.clamp(min=0), c.clamp(min=0)
    distance = torch.sqrt(outside_a * outside_a + outside_c * outside_c) + torch.maximum(a, c).clamp(max=0) - f[17]
    distance = torch.maximum(distance, local_y - f[21])
    return distance * f[12], local_x, local_y, local_z


def distance(x: Tensor, y: Tensor, z: Tensor, fields: Tensor) -> Tensor:
    """``(b, n)`` distance to the toy: the nearest part, melted with the second nearest."""
    each = part_distances(x, y, z, fields)[0]
    blends = fields[:, :, 22]
    first, which = each.min(1, keepdim=True)
    second, runner_up = each.scatter(1, which, torch.inf).min(1, keepdim=True)
    blend = torch.minimum(blends.gather(1, which[:, 0]), blends.gather(1, runner_up[:, 0])) + BLEND_FLOOR
    overlap = (blend - (second - first)[:, 0]).clamp(min=0)
    return first[:, 0] - overlap * overlap * (0.25 / blend)


def nearest_part(x: Tensor, y: Tensor, z: Tensor, fields: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which part is nearest ``(b, n)`` long, and the points in its scaled local axes."""
    each, local_x, local_y, local_z = part_distances(x, y, z, fields)
    which = each.argmin(1, keepdim=True)
    at_x, at_y, at_z = (local.gather(1, which)[:, 0] for local in (local_x, local_y, local_z))
    return which[:, 0], at_x, at_y, at_z


def march(
    start: Tensor, end: Tensor, origin: tuple[Tensor, ...], direction: tuple[Tensor, ...], fields: Tensor, steps: int
) -> Tensor:
    """Sphere tracing.

    Args:
        start, end: ``(b, n)`` where each ray begins and stops; a ray with ``start >= end`` stays.
        origin: three ``(b, 1)``, direction: three ``(b, n)``.

    Returns:
        ``(b, n)`` lengths along the rays where they touch the toy or have passed ``end``.
    """
    t = start
    for _ in range(steps):
        x, y, z = (o + u * t for o, u in zip(origin, direction, strict=True))
        d = distance(x, y, z, fields)
        t = torch.where((d > TOUCH) & (t < end), t + d * STEP, t)
    return t


def shadow(point: tuple[Tensor, ...], light: tuple[Tensor, ...], fields: Tensor, steps: int) -> Tensor:
    """Soft shadow.

    Args:
        point: three ``(b, n)``, light: three ``(b, 1)``, unit length.

    Returns:
        ``(b, n)``: 1 in the light, 0 in the shadow.

    Source: I. Quilez, "Soft shadows in raymarched SDFs".
    """
    t = torch.full_like(point[0], SHADOW_START)
    lit = torch.ones_like(t)
    for _ in range(steps):
        x, y, z = (p + u * t for p, u in zip(point, light, strict=True))
        d = distance(x, y, z, fields)
        lit = torch.minimum(lit, SOFTNESS * d / t)
        t = t + d.clamp(*SHADOW_STEP)
    return lit.clamp(0, 1)
