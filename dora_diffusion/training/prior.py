"""Class images: pictures of the class, made by the untouched base, kept under everything that shapes them."""

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from dora_diffusion.config import TrainConfig
from dora_diffusion.data.photos import find_photos, list_photos, open_photo
from dora_diffusion.errors import DataError
from dora_diffusion.inference.draw import Drawing, draw, sampler_name
from dora_diffusion.inference.out_of_memory import memory_told
from dora_diffusion.inference.picture import save_picture
from dora_diffusion.machine import home
from dora_diffusion.models import BaseModel, base_digest
from dora_diffusion.training import remedies
from dora_diffusion.training.events import ShouldStop, StoppedEarlyError, never

OnImage = Callable[[int, int], None]
KEPT = "Class images made so far are kept as long as nothing that shapes them changes."


def class_images(
    base: BaseModel,
    config: TrainConfig,
    resolution: int,
    on_image: OnImage,
    process: int = 0,
    processes: int = 1,
    should_stop: ShouldStop = never,
) -> list[Path]:
    """The run's class images: those of ``class_data_dir``, and as many of the base's own as are missing.

    Each is drawn from its own seed, so an interrupted set is completed and several processes share the work; a process
    draws every ``processes``-th. The folder's name is a digest of base, prompt, sampler, seed and resolution: a change
    of any is a new folder.

    Raises:
        DataError, MachineError: the folder cannot be read or written, or the memory does not suffice.
        StoppedEarlyError: ``should_stop`` said so; the images made so far are kept.
    """
    prior = config.prior
    given = given_class_images(config)
    recipe = class_image_recipe(base, config, resolution)
    folder = class_image_folder(prior.class_data_dir, recipe)
    paths = [folder / f"{k:05d}.png" for k in range(prior.num_class_images - len(given))]
    missing = [k for k, path in enumerate(paths) if not _is_whole(path)]
    # By number, not by place among the missing: another process may have drawn some before this one looked.
    mine = [k for k in missing if k % processes == process]
    drawing = Drawing(prior.class_images_steps, prior.class_images_guidance, "", resolution, resolution)
    on_image(len(paths) - len(missing), len(paths))
    for start in range(0, len(mine), prior.sample_batch_size):
        if should_stop():
            raise StoppedEarlyError
        chunk = mine[start : start + prior.sample_batch_size]
        seeds = [prior.class_images_seed + k for k in chunk]
        with memory_told("drawing class images", remedies.when_drawing_the_class(config), KEPT):
            images = draw(base, [config.class_prompt()] * len(chunk), seeds, drawing)
        for k, seed, image in zip(chunk, seeds, images, strict=True):
            fresh = paths[k].with_name(f".{paths[k].name}")
            save_picture(image, fresh, {**recipe, "seed": seed}).replace(paths[k])
        on_image(len(paths) - len(missing) + start + len(chunk), len(paths))
    return given + paths


def class_image_recipe(base: BaseModel, config: TrainConfig, resolution: int) -> dict[str, str | int | float]:
    """Everything that shapes a class image, besides its number."""
    prior = config.prior
    return {
        "base": base_digest(base),
        "prompt": config.class_prompt(),
        **base.schedule_facts(),
        "sampler": sampler_name(base, "model"),
        "num_inference_steps": prior.class_images_steps,
        "guidance_scale": prior.class_images_guidance,
        "seed": prior.class_images_seed,
        "width": resolution,
        "height": resolution,
        "model": base.name,
    }


def class_image_folder(class_data_dir: Path | None, recipe: dict[str, str | int | float]) -> Path:
    """Where the images of ``recipe`` are kept."""
    shaping = {key: value for key, value in recipe.items() if key != "model"}
    digest = blake2b(json.dumps(shaping, sort_keys=True).encode(), digest_size=8).hexdigest()
    root = class_data_dir if class_data_dir is not None else home() / "class_images"
    return root / f"generated-{digest}"


def given_class_images(config: TrainConfig) -> list[Path]:
    """The user's own class images that the run uses; a folder that does not exist yet, or holds none, is fine."""
    return _given(config.prior.class_data_dir)[: config.prior.num_class_images]


def _given(folder: Path | None) -> list[Path]:
    if folder is None or not folder.exists():
        return []
    try:
        find_photos(folder)
    except DataError:
        if folder.is_dir():
            return []
        raise
    return list_photos(folder)


def _is_whole(path: Path) -> bool:
    try:
        open_photo(path)
    except (DataError, OSError):
        return False
    return True
