"""What to draw: one order, and what it may say. Every order is checked before anything is started for it."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from dora_diffusion.errors import StudioError
from dora_diffusion.registry import SAMPLERS, did_you_mean

MAX_PROMPT = 1000
MAX_STRENGTH = 1.5
MAX_SEED = 2**31 - 1
MAX_PICTURES = 8
MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MIN_SIDE, MAX_SIDE = 64, 2048
MAX_PIXELS = 1536 * 1536
RANDOM = -1  # a seed that is decided when the picture is drawn


@dataclass(frozen=True)
class Order:
    """Pictures to draw.

    Args:
        subject_id: None is the base alone.
        base: name of a base model; that of the subject, where there is one.
        job_id, step: a checkpoint of one of the subject's trainings; left out, the subject's adapter.
        prompt: as it was typed; ``<name>`` in it stands for the subject.
        strength: 0 is the base, exactly.
        seed: of the first picture, each next one has the seed after it; -1 is decided when it is drawn.
        guidance_scale: None is what suits the base.
        sampler: "model" is the base's own.
        width, height: pixels, multiples of 8; None is the base's own size.
    """

    subject_id: str | None = None
    base: str = "toybox"
    job_id: str | None = None
    step: int | None = None
    prompt: str = ""
    negative_prompt: str = ""
    strength: float = 1.0
    seed: int = 0
    num_images: int = 1
    num_inference_steps: int = 25
    guidance_scale: float | None = None
    sampler: str = "model"
    width: int | None = None
    height: int | None = None


def checked(order: Order) -> Order:
    """The order with its blanks tidied and whole numbers whole, if it can be drawn.

    Raises:
        StudioError: a setting is out of range; the message says which, the range and what was given.
    """
    prompt, negative = _words(order.prompt, "A prompt"), _words(order.negative_prompt, "A negative prompt")
    if not prompt:
        raise StudioError("Write what the picture shall show, for example: a photo of sks teapot on the beach.")
    seed = _whole(order.seed, "A seed", RANDOM, MAX_SEED, " (-1: a random one)")
    count = _whole(order.num_images, "Pictures at a time: the number", 1, MAX_PICTURES)
    if seed + count - 1 > MAX_SEED:
        raise StudioError(f"The last picture's seed would be {seed + count - 1}; at most {MAX_SEED}. Take a lower one.")
    if order.sampler != "model" and order.sampler not in SAMPLERS:
        known = ["model", *SAMPLERS]
        raise StudioError(
            f"There is no sampler {str(order.sampler)[:40]!r}; known: {', '.join(known)}."
            f"{did_you_mean(str(order.sampler)[:40], known)}"
        )
    if order.step is not None and order.job_id is None:
        raise StudioError(f"Step {order.step} of which training? A checkpoint is named by its training and its step.")
    width, height = _side(order.width, "The width"), _side(order.height, "The height")
    if (width or MIN_SIDE) * (height or MIN_SIDE) > MAX_PIXELS:
        raise StudioError(
            f"A picture has at most {MAX_PIXELS:,} pixels (1536 x 1536), got {width} x {height}. Make it smaller."
        )
    return replace(
        order,
        prompt=prompt,
        negative_prompt=negative,
        strength=_number(order.strength, "Strength", 0, MAX_STRENGTH),
        seed=seed,
        num_images=count,
        num_inference_steps=_whole(order.num_inference_steps, "Sampling steps: the number", 1, MAX_STEPS),
        guidance_scale=None
        if order.guidance_scale is None
        else _number(order.guidance_scale, "Guidance", 0, MAX_GUIDANCE),
        step=None if order.step is None else _whole(order.step, "A checkpoint's step", 0, 10**9),
        width=width,
        height=height,
    )


def decided(order: Order) -> Order:
    """The order with a seed, where it left it to chance."""
    if order.seed != RANDOM:
        return order
    return replace(order, seed=secrets.randbelow(MAX_SEED - MAX_PICTURES))


def one_by_one(order: Order) -> Iterator[Order]:
    """An order for each of its pictures, with a seed of its own."""
    for offset in range(order.num_images):
        yield replace(order, num_images=1, seed=order.seed + offset)


def tidied(text: str) -> str:
    """The words of ``text`` with single blanks between them, and nothing that cannot be seen."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def _words(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise StudioError(f"{what} is text, got {str(text)[:40]!r}.")
    if len(text) > MAX_PROMPT:
        raise StudioError(f"{what} has at most {MAX_PROMPT} letters, got {len(text)}. Shorten it.")
    return tidied(text)


def _number(value: Any, what: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise StudioError(f"{what} lies between {least:g} and {most:g}, got {_shown(value)}.")
    return float(value)


def _whole(value: Any, what: str, least: int, most: int, besides: str = "") -> int:
    """A page's number fields give floats, also where they show whole numbers."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or value != int(value):
        raise StudioError(f"{what} is a whole number from {least} to {most}{besides}, got {_shown(value)}.")
    return int(value)


def _side(value: Any, what: str) -> int | None:
    if value is None:
        return None
    side = _whole(value, what, MIN_SIDE, MAX_SIDE)
    if side % 8:
        raise StudioError(f"{what} is a multiple of 8, got {side}. Take {side - side % 8} or {side - side % 8 + 8}.")
    return side


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    if isinstance(value, float):
        return f"{value:g}"
    is_huge = isinstance(value, int) and value.bit_length() > 1000
    return "a number without end" if is_huge else str(value)[:40]
