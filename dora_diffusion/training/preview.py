"""Pictures on the way: fixed seeds, the live adapter, nothing reloaded."""

from pathlib import Path

from dora_diffusion.config import TrainConfig
from dora_diffusion.inference.draw import Drawing, draw, guidance_of, sampler_name
from dora_diffusion.inference.picture import save_picture
from dora_diffusion.models import BaseModel

PREVIEW = Drawing()


def draw_previews(base: BaseModel, config: TrainConfig, step: int) -> tuple[Path, ...]:
    """``samples/step-<step>-<prompt>-<seed>.png`` for every validation prompt; the same seeds at every step."""
    run = config.run
    seeds = [run.seed + k for k in range(run.num_validation_images)]
    prompts = [(number, prompt, seed) for number, prompt in enumerate(run.validation_prompt) for seed in seeds]
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
