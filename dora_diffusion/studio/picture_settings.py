"""What a picture file says of how it was made: ours in full, and the ``parameters`` text that A1111 began.

A file comes from anybody: nothing in it is believed before it is checked, and whatever is odd becomes a note.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.orders import MAX_PROMPT, Order, checked, tidied

KEY = "dora_diffusion"  # as inference.picture writes it, which the server cannot import: it brings torch
MAX_FILE = 64 * 1024**2
MAX_TEXT = 64 * 1024
# What A1111 and Forge call the samplers that are here; theirs of other names have no like.
_SAMPLERS = {"ddim": "ddim", "euler": "euler", "dpm++ 2m": "dpmpp_2m", "unipc": "unipc"}
_PAIR = re.compile(r'\s*(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_WORDS = {
    "num_inference_steps": "number of steps",
    "guidance_scale": "guidance",
    "negative_prompt": "negative prompt",
}


@dataclass(frozen=True)
class Found:
    """What a file says.

    Args:
        order: as far as it could be taken over; subject and base are not looked up yet.
        notes: what could not, a sentence each.
        facts: what else our own files say: "adapter_sha256", "subject", "base_digest", "version".
        is_ours: made here, or in another studio.
    """

    order: Order
    notes: tuple[str, ...]
    facts: dict[str, str] = field(default_factory=dict)
    is_ours: bool = False


def read_picture(path: Path) -> Found:
    """The settings in a picture file.

    Raises:
        StudioError: it is no picture, too large, or says nothing of how it was made.
    """
    ours, parameters, size = _texts(path)
    if ours is not None:
        found = _read_ours(ours)
        if found is not None:
            return found
    if parameters:
        return _read_parameters(parameters, size)
    raise StudioError(
        "This picture says nothing of how it was made. Pictures that were edited, sent by a messenger or converted "
        "have lost that; use the PNG file as it was saved."
    )


def _texts(path: Path) -> tuple[str | None, str | None, tuple[int, int]]:
    """Both texts and the size; nothing is decoded but the file's head."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise StudioError(f"A picture file has at most {MAX_FILE // 1024**2} MB to be read here.")
        with Image.open(path) as image:
            texts = [image.info.get(key) for key in (KEY, "parameters")]
            ours, parameters = (text if isinstance(text, str) and len(text) <= MAX_TEXT else None for text in texts)
            return ours, parameters, image.size
    except StudioError:
        raise
    except Exception:  # a broken file makes PIL raise whatever it likes
        raise StudioError("This file is no picture that can be read.") from None


def _read_ours(text: str) -> Found | None:
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(settings, dict):
        return None
    given = settings.get("order")
    values = dict(given) if isinstance(given, dict) else {}
    # Files of the command line have no order, and the same names beside it.
    known = {one.name for one in fields(Order)}
    values = {**{key: value for key, value in settings.items() if key in known and not values}, **values}
    if isinstance(given, dict):
        values["seed"] = settings.get("seed")  # each picture's own; the order may have been for several
    else:
        values.pop("sampler", None)  # the name of a class, where it is the base's own
    notes: list[str] = []
    order = _taken(values, notes)
    if not order.prompt:
        return None
    facts = {key: value for key, value in settings.items() if isinstance(value, str) and key != "prompt"}
    return Found(order, tuple(notes), facts, is_ours=True)


def _read_parameters(text: str, size: tuple[int, int]) -> Found:
    """Prompt, a line "Negative prompt: ...", and last a line "Steps: 20, Sampler: ..., Size: 512x512"."""
    *lines, last = text.strip().split("\n")
    if not last.lstrip().startswith("Steps:"):
        lines, last = [*lines, last], ""
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    pairs = {key.strip().lower(): value.strip() for key, value in _PAIR.findall(last)}
    notes: list[str] = []
    width, _, height = pairs.get("size", f"{size[0]}x{size[1]}").partition("x")
    values: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "num_inference_steps": _as_number(pairs.get("steps")),
        "seed": _as_number(pairs.get("seed")),
        "guidance_scale": _as_number(pairs.get("cfg scale")),
        "width": _as_number(width),
        "height": _as_number(height),
    }
    if "sampler" in pairs:
        named = pairs["sampler"].lower().removesuffix(" karras")
        values["sampler"] = _SAMPLERS.get(named)
        if named not in _SAMPLERS:
            notes.append(f"The sampler {pairs['sampler'][:40]} is not here; the base's own is taken.")
    if "model" in pairs:
        notes.append(f"It was made with the model {pairs['model'][:60]}; choose a base here.")
    order = _taken({key: value for key, value in values.items() if value is not None}, notes)
    if not order.prompt:
        raise StudioError("This picture's text has no prompt in it.")
    return Found(order, tuple(notes))


def _taken(values: Mapping[str, Any], notes: list[str]) -> Order:
    """An order of those ``values`` that it can have, one by one, so that a bad one does not cost the others."""
    prompt = _text(values.get("prompt"), "prompt", notes)
    order = Order(prompt=prompt or "x")
    for name in (one.name for one in fields(Order)):
        if name == "prompt" or name not in values:
            continue
        value = values[name]
        if name == "negative_prompt":
            value = _text(value, "negative prompt", notes)
        if name in ("subject_id", "base", "job_id", "sampler") and not isinstance(value, str | None):
            continue
        if name == "num_images" or value is None:
            continue
        if name == "step" and order.job_id is None:
            continue
        try:
            order = checked(replace(order, **{name: value}))
        except StudioError as error:
            notes.append(f"Its {_WORDS.get(name, name)} was left out. {error}")
    return replace(order, prompt=prompt)


def _text(value: Any, what: str, notes: list[str]) -> str:
    text = tidied(value) if isinstance(value, str) else ""
    if len(text) > MAX_PROMPT:
        notes.append(f"Its {what} has {len(text)} letters and was cut to {MAX_PROMPT}.")
    return text[:MAX_PROMPT]


def _as_number(text: str | None) -> float | None:
    """The number in ``text``; None where there is none."""
    if text is None or not re.fullmatch(r"\s*-?\d{1,12}(\.\d{1,12})?\s*", text):
        return None
    return float(text)
