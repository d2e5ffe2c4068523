"""Pictures of a trained subject: one merged pipeline, kept between pictures; each one a file before it is shown."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image

from dora_diffusion.config import GenerateConfig
from dora_diffusion.config.guidance import usual_guidance
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.subjects import Subject

MAX_PICTURES = 8
MAX_STRENGTH = 1.5
MAX_SEED = 2**31 - 1


OnStep = Callable[[int, int], None]


class Pipeline(Protocol):
    """What the studio needs of ``inference.MergedPipeline``."""

    def switch(self, adapter: Path | None, strength: float = 1.0) -> object: ...

    def draw(
        self,
        *,
        prompt: str,
        seed: int = 0,
        num_images: int = 1,
        negative_prompt: str = "",
        num_inference_steps: int = 25,
        guidance_scale: float | None = None,
        on_step: OnStep | None = None,
    ) -> list[Image]: ...


def _open_pipeline(base: str) -> Pipeline:
    # torch and diffusers load with the first picture, not with the page
    from dora_diffusion.inference import MergedPipeline

    return MergedPipeline(base)


class Pictures:
    """Draws, and keeps what it drew in ``media/pictures/<subject>/``. One picture order at a time; others wait.

    Args:
        media: folder of the files that a page may show.
        open_pipeline: makes the pipeline for the name of a base model.
    """

    def __init__(self, media: Path, open_pipeline: Callable[[str], Pipeline] = _open_pipeline):
        self._folder = media / "pictures"
        self._open_pipeline = open_pipeline
        self._kept: tuple[str, Pipeline] | None = None
        self._lock = threading.Lock()

    def draw(
        self,
        subject: Subject,
        *,
        prompt: str,
        strength: float,
        seed: int,
        num_images: int,
        on_step: OnStep | None = None,
    ) -> list[Path]:
        """Draw ``num_images`` pictures of the subject; the first from ``seed``, each next one from the seed after it.

        Returns: the PNG files, with the settings of each inside.

        Raises:
            StudioError: the subject is not trained yet, or a setting is out of range.
        """
        adapter = subject.adapter
        if adapter is None:
            raise StudioError(f"{subject.id} is not trained yet. Press Train first; pictures come after it.")
        _check(prompt, strength, seed, num_images)
        words = " ".join(prompt.split())
        settings = GenerateConfig(
            adapter=adapter,
            pretrained_model_name_or_path=subject.base,
            prompt=words,
            strength=strength,
            seed=seed,
            num_images=num_images,
            guidance_scale=usual_guidance(subject.base),
        )
        with self._lock:
            pipeline = self._pipeline(subject.base)
            pipeline.switch(adapter, strength)
            drawn = pipeline.draw(
                prompt=words,
                negative_prompt=settings.negative_prompt,
                seed=seed,
                num_images=num_images,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                on_step=on_step,
            )
            return [self._keep(subject, picture, settings, offset) for offset, picture in enumerate(drawn)]

    def of(self, subject_id: str) -> list[Path]:
        """Every picture of the subject, the newest first."""
        return sorted((self._folder / subject_id).glob("*.png"), reverse=True)

    def release(self) -> None:
        """Let go of the pipeline's memory, for a training that needs it; waits for a picture that is being drawn."""
        with self._lock:
            self._kept = None

    def _pipeline(self, base: str) -> Pipeline:
        if self._kept is None or self._kept[0] != base:
            self._kept = None  # the old one goes before the new one comes: two may not fit
            self._kept = (base, self._open_pipeline(base))
        return self._kept[1]

    def _keep(self, subject: Subject, picture: Image, settings: GenerateConfig, offset: int) -> Path:
        from dora_diffusion.inference import save_picture

        folder = self._folder / subject.id
        folder.mkdir(parents=True, exist_ok=True)
        seed = settings.seed + offset
        newest = next(iter(self.of(subject.id)), None)
        number = int(newest.name.split("-")[0]) + 1 if newest else 1
        path = folder / f"{number:05d}-seed{seed}.png"
        save_picture(picture, path, _remembered(subject, picture, settings, seed))
        return path


def _remembered(subject: Subject, picture: Image, settings: GenerateConfig, seed: int) -> dict[str, Any]:
    """What a picture carries of how it was made; the subject's name for the adapter, as a path would tell too much."""
    return {
        "prompt": settings.prompt,
        "negative_prompt": settings.negative_prompt,
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        "sampler": settings.sampler,
        "width": picture.width,
        "height": picture.height,
        "model": subject.base,
        "adapter": subject.id,
        "strength": settings.strength,
        "mode": settings.mode,
        "seed": seed,
    }


def _check(prompt: str, strength: float, seed: int, num_images: int) -> None:
    if not prompt.strip():
        raise StudioError("Write what the picture shall show, for example: a photo of sks teapot on the beach.")
    if len(prompt) > 1000:
        raise StudioError(f"A prompt has at most 1000 letters, got {len(prompt)}. Shorten it.")
    if not 0 <= strength <= MAX_STRENGTH:
        raise StudioError(f"Strength lies between 0 and {MAX_STRENGTH}, got {strength:g}.")
    if not 0 <= seed <= MAX_SEED:
        raise StudioError(f"A seed is a whole number from 0 to {MAX_SEED}, got {seed}.")
    if not 1 <= num_images <= MAX_PICTURES:
        raise StudioError(f"1 to {MAX_PICTURES} pictures at a time, got {num_images}.")
