"""Pictures on the way: fixed seeds, the live adapter, nothing reloaded."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.inference.draw import Drawing, draw, guidance_of, sampler_name
from dora_diffusion.inference.picture import read_settings, save_picture
from dora_diffusion.models import BaseModel

PREVIEW = Drawing()


def validation_prompts(config: TrainConfig) -> list[str]:
    """The prompts of the previews, ``{trigger}`` and ``{class}`` written out.

    Raises:
        ConfigError: one has ``{class}``, and no class noun is given.
    """
    data = config.data
    prompts = config.run.validation_prompt
    for prompt in prompts:
        if "{class}" in prompt and not data.class_noun:
            raise ConfigError(f"The validation prompt {prompt!r} needs --class_noun (for example: dog).")
    return [prompt.replace("{trigger}", data.trigger).replace("{class}", data.class_noun or "") for prompt in prompts]


def draw_previews(base: BaseModel, config: TrainConfig, step: int) -> tuple[Path, ...]:
    """``samples/step-<step>-<prompt>-<seed>.png`` for every validation prompt; the same seeds at every step."""
    run = config.run
    seeds = [run.seed + k for k in range(run.num_validation_images)]
    prompts = [(number, prompt, seed) for number, prompt in enumerate(validation_prompts(config)) for seed in seeds]
    images = draw(base, [prompt for _, prompt, _ in prompts], [seed for _, _, seed in prompts], PREVIEW)
    paths = []
    for (number, prompt, seed), image in zip(prompts, images, strict=True):
        settings = {
            "prompt": prompt,
            "seed": seed,
            "num_inference_steps": PREVIEW.num_inference_steps,
            "guidance_scale": guidance_of(base, PREVIEW.guidance_scale),
            "sampler": sampler_name(base, PREVIEW.sampler),
            "width": image.width,
            "height": image.height,
            "model": base.name,
            "adapter": run.output_dir.name,
            "strength": 1.0,
            "step": step,
        }
        path = run.output_dir / "samples" / f"step-{step:06d}-{number:02d}-{seed}.png"
        paths.append(save_picture(image, path.with_name(f".{path.name}"), settings).replace(path))
    return tuple(paths)


def pictures_by_prompt(paths: Iterable[Path]) -> dict[str, list[Image.Image]]:
    """The previews in these files, those of one prompt together, under ``validation/<prompt>``."""
    pictures: dict[str, list[Image.Image]] = {}
    for path in paths:
        with Image.open(path) as image:
            pictures.setdefault(f"validation/{read_settings(path)['prompt']}", []).append(image.convert("RGB"))
    return pictures
