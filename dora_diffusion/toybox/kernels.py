"""The functions of ``field.py`` as Triton kernels: a whole march in registers, thousands of pictures a second.

Imported only where the tensors are on a GPU. The GPU tests hold them to the plain functions.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dora_diffusion.toybox.field import BLEND_FLOOR, SHADOW_START, SHADOW_STEP, SOFTNESS, STEP, TOUCH
from dora_diffusion.toybox.parts import FIELDS

BLOCK = 256

_FIELDS = tl.constexpr(FIELDS)
_FLOOR = tl.constexpr(BLEND_FLOOR)
_TOUCH = tl.constexpr(TOUCH)
_STEP = tl.constexpr(STEP)
_SOFTNESS = tl.constexpr(SOFTNESS)
_SHADOW_START = tl.constexpr(SHADOW_START)
_SHADOW_LOW = tl.constexpr(SHADOW_STEP[0])
_SHADOW_HIGH = tl.constexpr(SHADOW_STEP[1])


@triton.jit
def _part(x, y, z, f):  # type: ignore[no-untyped-def]
    """Distance to the part whose fields begin at ``f``, and the local coordinates."""
    px = x + tl.load(f + 23) * (tl.abs(x) - x) - tl.load(f + 0)
    py = y - tl.load(f + 1)
    pz = z + tl.load(f + 24) * (tl.abs(z) - z) - tl.load(f + 2)
    lx = tl.load(f + 3) * px + tl.load(f + 4) * py + tl.load(f + 5) * pz
    ly = tl.load(f + 6) * px + tl.load(f + 7) * py + tl.load(f + 8) * pz
    lz = tl.load(f + 9) * px + tl.load(f + 10) * py + tl.load(f + 11) * pz
    qx = tl.abs(lx) - tl.load(f + 13)
    qz = tl.abs(lz) - tl.load(f + 14)
    ox = tl.maximum(qx, 0.0)
    oz = tl.maximum(qz, 0.0)
    side = tl.sqrt(ox * ox + oz * oz) + tl.minimum(tl.maximum(qx, qz), 0.0) - tl.load(f + 15)
    side = (side + tl.load(f + 18) * ly) * tl.load(f + 19)
    wall = tl.load(f + 20)
    side = tl.abs(side + wall) - wall
    edge = tl.load(f + 17)
    a = side + edge
    c = tl.abs(ly) - tl.load(f + 16) + edge
    oa = tl.maximum(a, 0.0)
    oc = tl.maximum(c, 0.0)
    d = tl.sqrt(oa * oa + oc * oc) + tl.minimum(tl.maximum(a, c), 0.0) - edge
    d = tl.maximum(d, ly - tl.load(f + 21)) * tl.load(f + 12)
    return d, lx, ly, lz


@triton.jit
def _toy(x, y, z, fields, parts):  # type: ignore[no-untyped-def]
    """Distance to the toy whose table begins at ``fields``: the two nearest parts, melted."""
    first = tl.full(x.shape, 1e9, tl.float32)
    second = tl.full(x.shape, 1e9, tl.float32)
    first_blend = tl.zeros(x.shape, tl.float32)
    second_blend = tl.zeros(x.shape, tl.float32)
    for k in range(parts):
        f = fields + k * _FIELDS
        d, _, _, _ = _part(x, y, z, f)
        own = tl.load(f + 22) + tl.zeros(x.shape, tl.float32)
        best = d < first
        runner_up = d < second
        second_blend = tl.where(best, first_blend, tl.where(runner_up, own, second_blend))
        second = tl.where(best, first, tl.where(runner_up, d, second))
        first_blend = tl.where(best, own, first_blend)
        first = tl.where(best, d, first)
    blend = tl.minimum(first_blend, second_blend) + _FLOOR
    overlap = tl.maximum(blend - (second - first), 0.0)
    return first - overlap * overlap * (0.25 / blend)


@triton.jit
def _distance_kernel(xs, ys, zs, fields, out, n, parts, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    base = row.to(tl.int64) * n
    x = tl.load(xs + base + at, inside, 0.0)
    y = tl.load(ys + base + at, inside, 0.0)
    z = tl.load(zs + base + at, inside, 0.0)
    tl.store(out + base + at, _toy(x, y, z, fields + row * parts * _FIELDS, parts), inside)


@triton.jit
def _nearest_kernel(xs, ys, zs, fields, which_out, x_out, y_out, z_out, n, parts, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    base = row.to(tl.int64) * n
    x = tl.load(xs + base + at, inside, 0.0)
    y = tl.load(ys + base + at, inside, 0.0)
    z = tl.load(zs + base + at, inside, 0.0)
    nearest = tl.full(x.shape, 1e9, tl.float32)
    which = tl.zeros(x.shape, tl.int32)
    at_x = tl.zeros(x.shape, tl.float32)
    at_y = tl.zeros(x.shape, tl.float32)
    at_z = tl.zeros(x.shape, tl.float32)
    for k in range(parts):
        d, lx, ly, lz = _part(x, y, z, fields + (row * parts + k) * _FIELDS)
        best = d < nearest
        nearest = tl.where(best, d, nearest)
        which = tl.where(best, k, which)
        at_x = tl.where(best, lx, at_x)
        at_y = tl.where(best, ly, at_y)
        at_z = tl.where(best, lz, at_z)
    tl.store(which_out + base + at, which, inside)
    tl.store(x_out + base + at, at_x, inside)
    tl.store(y_out + base + at, at_y, inside)
    tl.store(z_out + base + at, at_z, inside)


@triton.jit
def _march_kernel(start, end, origins, dxs, dys, dzs, fields, out, n, parts, steps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    base = row.to(tl.int64) * n
    t = tl.load(start + base + at, inside, 1.0)
    stop = tl.load(end + base + at, inside, 0.0)
    dx = tl.load(dxs + base + at, inside, 0.0)
    dy = tl.load(dys + base + at, inside, 0.0)
    dz = tl.load(dzs + base + at, inside, 0.0)
    ox = tl.load(origins + row * 3)
    oy = tl.load(origins + row * 3 + 1)
    oz = tl.load(origins + row * 3 + 2)
    table = fields + row * parts * _FIELDS
    step = 0
    going = tl.max((t < stop).to(tl.int32), 0)
    while (step < steps) & (going > 0):
        d = _toy(ox + dx * t, oy + dy * t, oz + dz * t, table, parts)
        free = (d > _TOUCH) & (t < stop)
        t = tl.where(free, t + d * _STEP, t)
        going = tl.max(free.to(tl.int32), 0)
        step += 1
    tl.store(out + base + at, t, inside)


@triton.jit
def _shadow_kernel(xs, ys, zs, lights, fields, out, n, parts, steps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    base = row.to(tl.int64) * n
    x = tl.load(xs + base + at, inside, 0.0)
    y = tl.load(ys + base + at, inside, 0.0)
    z = tl.load(zs + base + at, inside, 0.0)
    lx = tl.load(lights + row * 3)
    ly = tl.load(lights + row * 3 + 1)
    lz = tl.load(lights + row * 3 + 2)
    table = fields + row * parts * _FIELDS
    t = tl.full(x.shape, _SHADOW_START, tl.float32)
    lit = tl.full(x.shape, 1.0, tl.float32)
    for _ in range(steps):
        d = _toy(x + lx * t, y + ly * t, z + lz * t, table, parts)
        lit = tl.minimum(lit, _SOFTNESS * d / t)
        t += tl.minimum(tl.maximum(d, _SHADOW_LOW), _SHADOW_HIGH)
    tl.store(out + base + at, tl.minimum(tl.maximum(lit, 0.0), 1.0), inside)


def _grid(points: Tensor) -> tuple[int, int]:
    return (triton.cdiv(points.shape[1], BLOCK), points.shape[0])


def _dense(tensors: tuple[Tensor, ...], like: Tensor) -> list[Tensor]:
    return [tensor.expand_as(like).contiguous() for tensor in tensors]


def distance(x: Tensor, y: Tensor, z: Tensor, fields: Tensor) -> Tensor:
    """As ``field.distance``."""
    x, y, z = _dense((x, y, z), x)
    out = torch.empty_like(x)
    _distance_kernel[_grid(x)](x, y, z, fields.contiguous(), out, x.shape[1], fields.shape[1], BLOCK=BLOCK)
    return out


def nearest_part(x: Tensor, y: Tensor, z: Tensor, fields: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As ``field.nearest_part``."""
    x, y, z = _dense((x, y, z), x)
    which = torch.empty_like(x, dtype=torch.int32)
    at = [torch.empty_like(x) for _ in range(3)]
    _nearest_kernel[_grid(x)](x, y, z, fields.contiguous(), which, *at, x.shape[1], fields.shape[1], BLOCK=BLOCK)
    return which.long(), at[0], at[1], at[2]


def march(
    start: Tensor, end: Tensor, origin: tuple[Tensor, ...], direction: tuple[Tensor, ...], fields: Tensor, steps: int
) -> Tensor:
    """As ``field.march``."""
    start, end = _dense((start, end), start)
    directions = _dense(direction, start)
    origins = torch.cat(origin, 1).contiguous()
    out = torch.empty_like(start)
    _march_kernel[_grid(start)](
        start, end, origins, *directions, fields.contiguous(), out, start.shape[1], fields.shape[1], steps, BLOCK=BLOCK
    )
    return out


def shadow(point: tuple[Tensor, ...], light: tuple[Tensor, ...], fields: Tensor, steps: int) -> Tensor:
    """As ``field.shadow``."""
    x, y, z = _dense(point, point[0])
    lights = torch.cat(light, 1).contiguous()
    out = torch.empty_like(x)
    _shadow_kernel[_grid(x)](x, y, z, lights, fields.contiguous(), out, x.shape[1], fields.shape[1], steps, BLOCK=BLOCK)
    return out
