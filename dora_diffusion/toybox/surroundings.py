"""What lies behind and below a toy: the scenes, laid out for a camera."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dora_diffusion.toybox.camera import Rays, radians, rays
from dora_diffusion.toybox.draws import Views
from dora_diffusion.toybox.geometry import FAR, ground_length
from dora_diffusion.toybox.noise import smoothstep
from dora_diffusion.toybox.scenes import SCENES_BY_NAME, WALL_Z
from dora_diffusion.toybox.scenes.scene import Scene

GROUND_YAW = 15.0  # degrees either way that a scene is turned against the camera
WALL_YAW = 0.35  # a wall as much less
REACH = 60.0
NEAR, FARTHEST = 0.35, 1.75  # how far behind the toy a lens begins to blur, and where it blurs fully


@dataclass(frozen=True)
class Surroundings:
    """Before light. Colours ``(b, n, 3)`` or ``(b, 1, 3)``, the rest ``(b, n)`` or ``(b, 1)``."""

    ground: Tensor  # albedo
    back: Tensor  # light
    is_back: Tensor  # boolean
    depth: Tensor  # how far behind the toy, 0 near to 1 far: what a lens blurs
    distance: Tensor  # along the ground
    key: Tensor  # colour and strength of the lamp or sun
    sky: Tensor
    bounce: Tensor
    haze_color: Tensor
    haze: Tensor


@dataclass(frozen=True)
class _Paths:
    """Where rays meet ground and back; ``(b, n)``, ``b`` pictures of one scene."""

    ground_x: Tensor  # in the scene's frame
    ground_z: Tensor
    distance: Tensor
    back_x: Tensor  # slope to the right, or place on the wall
    back_y: Tensor  # slope above the horizon, or height on the wall
    is_back: Tensor


def surroundings(seen: Rays, views: Views, size: int, supersample: int) -> Surroundings:
    """The surroundings that ``seen``, ``size * supersample`` rays a side, would meet if there were no toys.

    Colours are painted once a pixel and shared by its rays; what is met first is found for every ray.
    """
    device = seen.azimuth.device
    scenes = list(SCENES_BY_NAME.values())
    coarse = rays(views, size, device) if supersample > 1 else seen
    seed = views.seed.to(device)[:, None]
    count, fine = seen.direction[0].shape
    ground, back = (torch.empty(count, coarse.direction[0].shape[1], 3, device=device) for _ in range(2))
    is_back = torch.empty(count, fine, dtype=torch.bool, device=device)
    distance = torch.empty(count, fine, device=device)
    for number in views.scene.unique().tolist():
        scene = scenes[number]
        rows = (views.scene == number).nonzero()[:, 0].to(device)
        at = _paths(scene, coarse.take(rows), seed[rows])
        ground[rows] = scene.ground(at.ground_x, at.ground_z, at.distance, seed[rows])
        back[rows] = scene.back(at.back_x, at.back_y, seed[rows])
        if scene.wall:
            back[rows] *= (0.62 + 0.33 * smoothstep(-0.1, 0.5, at.back_y))[..., None]
        met = _paths(scene, seen.take(rows), seed[rows]) if supersample > 1 else at
        is_back[rows], distance[rows] = met.is_back, met.distance

    def column(values: list[tuple[float, ...]]) -> Tensor:
        return torch.tensor(values, device=device)[views.scene.to(device)]

    key = [tuple(channel * scene.key_strength for channel in scene.key_color) for scene in scenes]
    behind = ((_behind(seen) - NEAR) / (FARTHEST - NEAR)).clamp(0, 1)
    return Surroundings(
        ground=_shared(ground, size, supersample),
        back=_shared(back, size, supersample),
        is_back=is_back,
        depth=torch.where(is_back, torch.ones_like(behind), behind),
        distance=distance,
        key=column(key)[:, None],
        sky=column([scene.sky for scene in scenes])[:, None],
        bounce=column([scene.bounce for scene in scenes])[:, None],
        haze_color=column([scene.haze_color for scene in scenes])[:, None],
        haze=column([(0.0 if scene.wall else scene.haze,) for scene in scenes]),
    )


def _paths(scene: Scene, seen: Rays, seed: Tensor) -> _Paths:
    (ox, oy, oz), (dx, dy, dz) = seen.origin, seen.direction
    turn = (seed % 2001).float() / 1000 - 1  # -1 to 1
    length = ground_length(seen)
    reach = length.clamp(max=REACH)
    x, z = ox + dx * reach, oz + dz * reach
    yaw = seen.azimuth + turn * radians(torch.tensor([GROUND_YAW]), turn.device) * (WALL_YAW if scene.wall else 1.0)
    cos, sin = yaw.cos(), yaw.sin()
    if scene.wall:
        wall_z, towards = ox * sin + oz * cos, dx * sin + dz * cos
        facing = towards < -1e-4
        way = torch.where(facing, (WALL_Z - wall_z) / torch.where(facing, towards, -torch.ones_like(towards)), FAR)
        back_x = (ox * cos - oz * sin + (dx * cos - dz * sin) * way).clamp(-20, 20)
        back_y = (oy + dy * way).clamp(-1, 20)
        is_back = way < length
    else:
        ahead = (dx * seen.forward[0] + dz * seen.forward[1]).clamp(min=0.2)
        back_x = (dx * seen.right[0] + dz * seen.right[1]) / ahead + 0.3 * turn
        back_y = (dy * torch.rsqrt(dx * dx + dz * dz)).clamp(min=-0.02)
        is_back = length >= FAR
    return _Paths(x * cos - z * sin, x * sin + z * cos, torch.sqrt(x * x + z * z), back_x, back_y, is_back)


def _behind(seen: Rays) -> Tensor:
    """How far behind the toy's axis each ray meets the ground, away from the camera."""
    reach = ground_length(seen).clamp(max=REACH)
    x, z = seen.origin[0] + seen.direction[0] * reach, seen.origin[2] + seen.direction[2] * reach
    return x * seen.forward[0] + z * seen.forward[1]


def _shared(colors: Tensor, size: int, supersample: int) -> Tensor:
    """``(b, size * size, 3)`` a pixel to ``(b, n, 3)`` a ray."""
    if supersample == 1:
        return colors
    square = colors.unflatten(1, (size, size))
    return square.repeat_interleave(supersample, 1).repeat_interleave(supersample, 2).flatten(1, 2)
