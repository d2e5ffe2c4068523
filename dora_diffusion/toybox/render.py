"""Pictures of toys: rays, hits, paint, light, lens and style, batched."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.toybox import geometry, paint
from dora_diffusion.toybox.camera import Rays, radians, rays
from dora_diffusion.toybox.draws import Instances, Views
from dora_diffusion.toybox.geometry import Hits, Vector
from dora_diffusion.toybox.scenes.scene import SHOULDER
from dora_diffusion.toybox.styles import stylise
from dora_diffusion.toybox.surroundings import Surroundings, surroundings

GPU_BATCH = 512
VIGNETTE = 0.14
LENS_BLUR = 2.6  # standard deviation in 1/128 of the picture at full blur


@dataclass(frozen=True)
class Rendered:
    """``images (n, 3, size, size)`` and the toys' ``masks (n, 1, size, size)``, in 0 to 1, on the device asked for."""

    images: Tensor
    masks: Tensor


@torch.no_grad()
def render(
    instances: Instances, views: Views, size: int = 128, supersample: int = 2, device: torch.device | str = "cpu"
) -> Rendered:
    """Pictures of ``instances`` as ``views`` see them, in their order.

    The same on every device but for rounding. A CPU works picture by picture and skips empty rays; a GPU takes batches
    of neighbouring scenes.

    Args:
        size: side in pixels.
        supersample: rays a pixel, along each side.
    """
    device = torch.device(device)
    images = torch.empty(len(instances), 3, size, size, device=device)
    masks = torch.empty(len(instances), 1, size, size, device=device)
    if not len(instances):
        return Rendered(images, masks)
    toys = paint.build(instances, device)
    order = views.scene.argsort(stable=True)
    for rows in order.split(GPU_BATCH if device.type == "cuda" else 1):
        where = rows.to(device)
        made = _render_batch(toys.take(where), views.take(rows), size, supersample, device)
        images[where], masks[where] = made.images, made.masks
    return Rendered(images, masks)


def _render_batch(toys: paint.Toys, views: Views, size: int, supersample: int, device: torch.device) -> Rendered:
    seen = rays(views, size * supersample, device)
    hits = geometry.find_hits(seen, toys.fields)
    around = surroundings(seen, views, size, supersample)
    light = _light(views, seen, device)
    lit = _lit(toys, hits, around, seen, light)
    side = size * supersample

    def picture(values: Tensor) -> Tensor:
        image = values.reshape(len(views), side, side, -1).permute(0, 3, 1, 2)
        return F.avg_pool2d(image, supersample) if supersample > 1 else image

    colors = _expose(lit, views, seen, device)
    image, mask, depth = picture(colors), picture(hits.toy.float()[..., None]), picture(around.depth[..., None])
    image = _lens_blur(image, mask, depth, views.blur.to(device), size)
    return Rendered(stylise(image.clamp(0, 1), mask, views.style.to(device), views.seed.to(device)), mask)


def _light(views: Views, seen: Rays, device: torch.device) -> Vector:
    """Unit direction to the light, three ``(b, 1)``; its azimuth is told against the camera's."""
    azimuth = radians(views.light_azimuth, device) + seen.azimuth
    elevation = radians(views.light_elevation, device)
    return azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()


def _lit(toys: paint.Toys, hits: Hits, around: Surroundings, seen: Rays, light: Vector) -> Tensor:
    """``(b, n, 3)`` light that reaches the camera: toy, ground and back together."""
    (ox, _, oz), (dx, dy, dz) = seen.origin, seen.direction
    near = hits.ground.clamp(max=9.0)
    point = (
        torch.where(hits.toy, hits.point[0], ox + dx * near),
        torch.where(hits.toy, hits.point[1], torch.zeros_like(dy)),
        torch.where(hits.toy, hits.point[2], oz + dz * near),
    )
    normal = hits.normal
    lifted = tuple(p + n * 0.012 for p, n in zip(point, normal, strict=True))
    shaded = hits.toy | ~around.is_back
    shadow = geometry.soft_shadow(shaded, lifted, light, toys.fields)  # type: ignore[arg-type]
    close = hits.toy | (~around.is_back & (around.distance < 1.4))
    open_sky = geometry.occlusion(close, point, normal, toys.fields)
    part, local = geometry.nearest_part(hits.toy, hits.point, toys.fields)
    surface = paint.paint(toys, hits.toy, part, local, hits.point, normal)
    toy = _shade_toy(surface, toys.finish, normal, seen.direction, light, shadow, open_sky, around)
    facing = shadow * light[1]
    ground = around.ground * (around.sky * (0.15 + 0.85 * open_sky)[..., None] + around.key * facing[..., None]) * 1.08
    fog = 1 - torch.exp(-(around.distance - 1.2).clamp(min=0) * around.haze)
    ground = ground + (around.haze_color - ground) * fog[..., None]
    rest = torch.where(around.is_back[..., None], around.back, ground)
    return torch.where(hits.toy[..., None], toy, rest)


def _shade_toy(
    surface: paint.Surface,
    finish: Tensor,
    normal: Vector,
    direction: Vector,
    light: Vector,
    shadow: Tensor,
    open_sky: Tensor,
    around: Surroundings,
) -> Tensor:
    """Diffuse light, the sky's and the ground's, a highlight and a rim, ``(b, n, 3)``. Source: J. F. Blinn, 1977."""
    diffuse = _dot(normal, light).clamp(min=0)
    half = (light[0] - direction[0], light[1] - direction[1], light[2] - direction[2])
    aligned = (_dot(normal, half) * torch.rsqrt(_dot(half, half) + 1e-9)).clamp(min=0)
    highlight = aligned**60 * (0.10 + 0.60 * finish) + aligned**12 * 0.09
    rim = (1 + _dot(normal, direction)).clamp(0, 1) ** 4 * (0.12 + 0.25 * finish)
    upward = (0.5 + 0.5 * normal[1])[..., None]
    ambient = around.bounce + (around.sky - around.bounce) * upward
    color = surface.albedo * (ambient * open_sky[..., None] * 0.95 + around.key * (diffuse * shadow)[..., None])
    color = color + (highlight * shadow * (1 + surface.metal.float()))[..., None] * around.key
    color = color + (rim * open_sky)[..., None] * around.sky * 1.4
    return torch.where(surface.glows[..., None], surface.albedo * 1.15 + 0.05, color)


def _dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _expose(light: Tensor, views: Views, seen: Rays, device: torch.device) -> Tensor:
    """Exposure, warmth, a soft shoulder and a vignette: ``(b, n, 3)`` in 0 to 1."""
    exposure = views.light.to(device)[:, None, None]
    warmth = views.warmth.to(device)[:, None, None] * torch.tensor([0.05, 0.0, -0.06], device=device)
    color = light.clamp(min=0) * exposure * (1 + warmth)
    shoulder = torch.tensor(SHOULDER, device=device)
    color = (1 - torch.exp(-color * shoulder)) / (1 - torch.exp(-shoulder))
    edge = 1 - VIGNETTE * (seen.screen_x**2 + seen.screen_y**2) / 2
    return color.clamp(0, 1) * edge[None, :, None]


def _lens_blur(image: Tensor, mask: Tensor, depth: Tensor, blur: Tensor, size: int) -> Tensor:
    """What lies behind the toy out of focus, as far as each view asks for it; the toy does not bleed into it."""
    rows = (blur > 0.05).nonzero()[:, 0]
    if not len(rows):
        return image
    sharp, toy, away = image[rows], mask[rows], depth[rows]
    outside = 1 - toy
    softened = _gaussian(torch.cat([sharp * outside, outside], 1), LENS_BLUR * size / 128)
    background = softened[:, :3] / softened[:, 3:].clamp(min=1e-3)
    share = away * outside * blur[rows, None, None, None]
    out = image.clone()
    out[rows] = sharp + (background - sharp) * share
    return out


def _gaussian(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur that repeats the border."""
    radius = max(1, round(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / sigma) ** 2)
    line = (line / line.sum()).to(image.dtype)
    channels = image.shape[1]
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, line.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(across, line.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
