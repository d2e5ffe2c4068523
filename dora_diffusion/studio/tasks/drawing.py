"""Draw: every picture singly, so that it has the same pixels alone as among others, and is there at once."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from dora_diffusion.errors import MachineError
from dora_diffusion.formats import adapter_file
from dora_diffusion.inference import save_picture
from dora_diffusion.inference.draw import guidance_of, sampler_name
from dora_diffusion.inference.out_of_memory import memory_told
from dora_diffusion.studio.tasks.desk import Desk

THUMB_SIDE, THUMB_QUALITY = 256, 85


def draw(
    desk: Desk,
    *,
    base: str,
    adapter: str | None,
    strength: float,
    prompt: str,
    negative_prompt: str,
    num_inference_steps: int,
    guidance_scale: float | None,
    sampler: str,
    width: int | None,
    height: int | None,
    files: Sequence[Mapping[str, Any]],
    remember: Mapping[str, Any],
) -> dict[str, Any]:
    """A picture for each of ``files`` ("seed", "path", "thumb"); an event "picture" for each, when it is there.

    Args:
        adapter: run folder or file; None, and strength 0, is the base.
        remember: what the file shall say of it besides.
    """
    pipeline = desk.pipeline(base)
    file = adapter_file(Path(adapter)) if adapter and strength else None
    # At strength 0 not even the word that an adapter learnt: it is the base, exactly.
    pipeline.switch(file, strength)
    settings = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_of(pipeline.base, guidance_scale),
        "sampler": sampler_name(pipeline.base, sampler),
        "width": width or pipeline.base.native_resolution,
        "height": height or pipeline.base.native_resolution,
        "strength": strength,
        "adapter_sha256": None if file is None else _sha256(file, file.stat().st_mtime_ns),
        "base_digest": desk.base_digest,
        **remember,
    }
    total = len(files) * num_inference_steps
    for number, wanted in enumerate(files):
        began = time.perf_counter()

        def report(done: int, _: int, before: int = number * num_inference_steps) -> None:
            desk.check_stop()
            desk.tell("step", done=before + done, total=total)

        desk.check_stop()
        with memory_told("drawing", _lighter(settings)):
            (image,) = pipeline.draw(
                prompt=prompt,
                seed=wanted["seed"],
                negative_prompt=negative_prompt,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
                width=width,
                height=height,
                on_step=report,
            )
        _keep(image, Path(wanted["path"]), Path(wanted["thumb"]), {**settings, "seed": wanted["seed"]})
        desk.tell(
            "picture",
            index=number,
            seconds=time.perf_counter() - began,
            width=image.width,
            height=image.height,
            guidance_scale=settings["guidance_scale"],
            sampler=settings["sampler"],
            adapter_sha256=settings["adapter_sha256"],
        )
    return {}


def _keep(image: Image.Image, path: Path, thumb: Path, settings: dict[str, Any]) -> None:
    """Both files whole, or neither.

    Raises:
        MachineError: the disk.
    """
    small = image.convert("RGB")
    small.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    drafts = [file.with_name(f".{file.name}") for file in (thumb, path)]
    try:
        for file in (thumb, path):
            file.parent.mkdir(parents=True, exist_ok=True)
        small.save(drafts[0], format="JPEG", quality=THUMB_QUALITY)
        save_picture(image, drafts[1], settings)
        for draft, file in zip(drafts, (thumb, path), strict=True):
            draft.replace(file)
    except OSError as error:
        for left in (*drafts, thumb):
            left.unlink(missing_ok=True)
        raise MachineError(
            f"The picture cannot be written: {error.strerror or error}. Free some space, for example by deleting "
            "pictures or subjects."
        ) from None


def _lighter(settings: Mapping[str, Any]) -> Iterator[str]:
    yield f"a picture smaller than {settings['width']} x {settings['height']}"
    yield "waiting until a training is done"


@lru_cache(maxsize=64)
def _sha256(file: Path, changed: int) -> str:
    """Of a file as it was ``changed``."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
