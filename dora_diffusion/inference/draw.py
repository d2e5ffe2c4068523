"""Draw pictures with a loaded base model: the same seed gives the same picture, in any batch."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dora_diffusion.config.guidance import usual_guidance
from dora_diffusion.errors import ConfigError
from dora_diffusion.models import BaseModel
from dora_diffusion.models.schedule import check_steps
from dora_diffusion.registry import SAMPLERS

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Drawing:
    """How a picture is drawn; sizes in pixels. None: what suits the model."""

    num_inference_steps: int = 25
    guidance_scale: float | None = None
    negative_prompt: str = ""
    height: int | None = None
    width: int | None = None
    sampler: str = "model"
    sample_batch_size: int = 4


@torch.no_grad()
def draw(
    base: BaseModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    drawing: Drawing | None = None,
    on_step: OnStep | None = None,
) -> list[Image.Image]:
    """One picture for each (prompt, seed).

    Raises:
        ConfigError: as many seeds as prompts are needed, or the base's schedule has not so many sampling steps.
    """
    pixels = draw_tensor(base, prompts, seeds, drawing, on_step)
    return pictures_of(pixels)


def pictures_of(pixels: Tensor) -> list[Image.Image]:
    """``(n, 3, h, w)`` in 0 to 1 as pictures."""
    arrays = (pixels.permute(0, 2, 3, 1).cpu() * 255).round().to(torch.uint8).numpy()
    return [Image.fromarray(array) for array in arrays]


@torch.no_grad()
def draw_tensor(
    base: BaseModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    drawing: Drawing | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The pictures as (n, 3, h, w) in [0, 1], float32, on the model's device."""
    how = drawing or Drawing()
    if len(prompts) != len(seeds):
        raise ConfigError(f"One seed for each prompt: got {len(prompts)} prompts and {len(seeds)} seeds.")
    total = len(prompts) * how.num_inference_steps
    parts = []
    for start in range(0, len(prompts), how.sample_batch_size):
        chunk = slice(start, start + how.sample_batch_size)
        latents = _denoise(
            base, list(prompts[chunk]), list(seeds[chunk]), how, start * how.num_inference_steps, total, on_step
        )
        parts.append(base.decode_latents(latents))
    return torch.cat(parts)


def sampler_name(base: BaseModel, sampler: str) -> str:
    """The name of the sampler that "model" stands for."""
    return str(type(base.pipe.scheduler).__name__) if sampler == "model" else sampler


def guidance_of(base: BaseModel, guidance_scale: float | None) -> float:
    """The guidance scale that None stands for."""
    return usual_guidance(base.name) if guidance_scale is None else guidance_scale


def _denoise(
    base: BaseModel, prompts: list[str], seeds: list[int], how: Drawing, done: int, total: int, on_step: OnStep | None
) -> Tensor:
    height, width = how.height or base.native_resolution, how.width or base.native_resolution
    shape = (base.unet.config.in_channels, height // base.vae_scale, width // base.vae_scale)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])

    def report(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step(done + (step + 1) * len(prompts), total)
        return values

    pipe = _with_sampler(base, how.sampler)
    check_steps(pipe.scheduler, how.num_inference_steps, sampler_name(base, how.sampler))
    return pipe(
        prompt=[base.marked(prompt) for prompt in prompts],
        # None, not "": SDXL was trained with zeros where there is no prompt, and its pipeline gives them for None only.
        negative_prompt=[base.marked(how.negative_prompt)] * len(prompts) if how.negative_prompt else None,
        height=height,
        width=width,
        num_inference_steps=how.num_inference_steps,
        guidance_scale=guidance_of(base, how.guidance_scale),
        generator=generators,
        latents=noise.to(base.device, base.dtype),
        output_type="latent",
        callback_on_step_end=report,
    ).images


def _with_sampler(base: BaseModel, sampler: str) -> Any:
    """A pipeline over the same parts; the base's own scheduler keeps no state of ours."""
    pipe = copy(base.pipe)
    kind = type(pipe.scheduler) if sampler == "model" else SAMPLERS.load(sampler)
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    return pipe
