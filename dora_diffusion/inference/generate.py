"""``generate(config)``: pictures of the subject, from the live adapter or from merged weights."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dora_diffusion.adapters import AdapterState, inject_state
from dora_diffusion.config import GenerateConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats import load_adapter
from dora_diffusion.inference.device import place
from dora_diffusion.inference.draw import Drawing, OnStep, draw, guidance_of, sampler_name
from dora_diffusion.inference.merged_pipeline import MergedWeights
from dora_diffusion.inference.out_of_memory import memory_told
from dora_diffusion.inference.picture import save_picture
from dora_diffusion.machine import check_writable
from dora_diffusion.models import BaseModel, choose_attention, load_base, schedule_from

logger = logging.getLogger(__name__)


def generate(config: GenerateConfig, on_step: OnStep | None = None) -> list[Path]:
    """Draw ``config.num_images`` pictures and return the files, each carrying its settings.

    Raises:
        ConfigError: no prompt was given, and the adapter knows none; it holds a placeholder of the training's prompts;
            or the base has not so many sampling steps.
        ModelError, FormatError, AdapterError: base or adapter cannot be read, or do not fit.
        MachineError: the memory does not suffice, or the folder cannot be written to.
    """
    check_writable(config.output_dir, 0)
    state = load_adapter(config.adapter) if config.adapter else None
    prompt = _prompt_for(config, state)
    with memory_told("loading the base", _lighter_base(config)):
        base = _load(config, state)
        if state is not None:
            apply_adapter(base, state, config.strength, live=config.mode == "live")
    drawing = Drawing(
        config.num_inference_steps,
        config.guidance_scale,
        config.negative_prompt,
        config.height,
        config.width,
        config.sampler,
        config.sample_batch_size,
    )
    settings = picture_settings(config, prompt, base)
    first = _next_number(config.output_dir)
    paths: list[Path] = []
    # Batch by batch, so that what is drawn is kept when the rest is interrupted.
    for start in range(0, config.num_images, config.sample_batch_size):
        seeds = [config.seed + k for k in range(start, min(start + config.sample_batch_size, config.num_images))]
        with memory_told("drawing", _lighter_drawing(config, len(seeds)), _kept(len(paths))):
            images = draw(base, [prompt] * len(seeds), seeds, drawing, _offset(on_step, start, config))
        for image, seed in zip(images, seeds, strict=True):
            path = config.output_dir / f"{first + len(paths):05d}.png"
            paths.append(save_picture(image, path, {**settings, "seed": seed}))
    return paths


def _prompt_for(config: GenerateConfig, state: AdapterState | None) -> str:
    taught = state.metadata.get("instance_prompt") if state else None
    prompt = config.prompt or taught
    if not prompt:
        raise ConfigError("What shall be drawn? Give --prompt 'a photo of ...'.")
    for placeholder in ("{trigger}", "{class}"):
        if placeholder in prompt:
            example = f" The adapter was taught with {taught!r}." if taught else ""
            raise ConfigError(
                f"--prompt is drawn as it is written; {placeholder} in {prompt!r} would be filled in by a training "
                f"alone: write the words themselves.{example}"
            )
    return prompt


def _lighter_drawing(config: GenerateConfig, at_once: int) -> Iterator[str]:
    """What needs less memory than drawing ``at_once`` pictures."""
    if at_once > 1:
        yield f"a --sample_batch_size below {at_once} (the same pictures)"
    yield "a lower --height and --width"
    yield from _lighter_base(config)


def _lighter_base(config: GenerateConfig) -> Iterator[str]:
    device, dtype = place(config.cpu, config.precision)
    if dtype == torch.float32:
        yield "--precision bf16" if device.type == "cpu" else "--precision fp16"
    if device.type != "cpu":
        yield "--cpu"


def _kept(count: int) -> str:
    return f"The {count} drawn before are kept." if count else ""


def _offset(on_step: OnStep | None, start: int, config: GenerateConfig) -> OnStep | None:
    """Count the steps of one batch as part of all pictures'."""
    if on_step is None:
        return None
    steps = config.num_inference_steps
    return lambda done, _: on_step(start * steps + done, config.num_images * steps)


def apply_adapter(base: BaseModel, state: AdapterState, strength: float, *, live: bool) -> None:
    """Give ``base`` the adapter, beside its weights (live) or merged into them."""
    if live:
        with torch.no_grad():
            inject_state(base, state, base.name).strength = strength
    else:
        MergedWeights(base, keep=0).switch(state, strength)


def picture_settings(config: GenerateConfig, prompt: str, base: BaseModel) -> dict[str, Any]:
    """What a picture remembers of how it was made."""
    return {
        "prompt": prompt,
        "negative_prompt": config.negative_prompt,
        "num_inference_steps": config.num_inference_steps,
        "guidance_scale": guidance_of(base, config.guidance_scale),
        "sampler": sampler_name(base, config.sampler),
        "width": config.width or base.native_resolution,
        "height": config.height or base.native_resolution,
        "model": base.name,
        "adapter": config.adapter.name if config.adapter else None,
        "strength": config.strength,
        "mode": config.mode,
    }


def load_for(
    given: str | None, state: AdapterState | None, dtype: torch.dtype = torch.float32, allow_pickle: bool = False
) -> BaseModel:
    """The base given, else the adapter's, else toybox; with the noise schedule that the adapter was trained on.

    Raises:
        ModelError: it cannot be loaded.
    """
    schedule = schedule_from(state.metadata if state else {})
    return load_base(base_name_for(given, state), dtype=dtype, allow_pickle=allow_pickle, **schedule)


def base_name_for(given: str | None, state: AdapterState | None) -> str:
    """The base given, else the adapter's, else toybox: where an adapter does not say, a guess, which is told."""
    named = given or (state.base_name if state else "")
    if state is not None and not named:
        logger.warning(
            "The adapter does not say which base it was trained on, so that toybox, the embedded one, is taken. If it "
            "is another, give --pretrained_model_name_or_path."
        )
    return named or "toybox"


def _load(config: GenerateConfig, state: AdapterState | None) -> BaseModel:
    device, dtype = place(config.cpu, config.precision)
    base = load_for(config.pretrained_model_name_or_path, state, dtype, config.allow_pickle).to(device)
    base.attention = choose_attention(base.unet, config.attention)
    return base


def _next_number(folder: Path) -> int:
    numbers = [int(path.stem) for path in folder.glob("*.png") if path.stem.isdigit()]
    return max(numbers, default=-1) + 1
