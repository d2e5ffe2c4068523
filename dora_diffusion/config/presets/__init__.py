"""Presets: named settings that lie between the defaults and a user's own.

Some are one YAML file in this folder. The others are put together from three layers, each named by its file:
``sdxl-person-12gb`` is ``base/sdxl.yaml``, over it ``subject/person.yaml``, over that ``memory/12gb.yaml``.
A memory layer may say more for one base, under its name.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import did_you_mean

FOLDER = Path(__file__).parent
LAYERS = ("base", "subject", "memory")

# The bases of the layered presets, by the family (registry.FAMILIES) that they are for.
_FAMILIES = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}


@cache
def preset_names() -> tuple[str, ...]:
    """Every preset, by name."""
    layered = ("-".join(parts) for parts in product(*(layer_names(layer) for layer in LAYERS)))
    return (*_whole_presets(), *layered)


@cache
def layer_names(layer: str) -> tuple[str, ...]:
    """What a layer ("base", "subject", "memory") can be, smallest memory first."""
    return tuple(sorted((path.stem for path in (FOLDER / layer).glob("*.yaml")), key=lambda name: (len(name), name)))


@cache
def known_presets() -> str:
    """The presets in words: those of one file, and what the others are put together from."""
    parts = "; ".join(f"{layer} {', '.join(layer_names(layer))}" for layer in LAYERS)
    return f"{', '.join(_whole_presets())}, or {'-'.join(LAYERS)} with {parts}"


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset, section by section.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in preset_names():
        hint = did_you_mean(name, list(preset_names()))
        raise ConfigError(f"Unknown preset {name!r}; known: {known_presets()}.{hint}")
    if name in _whole_presets():
        return _read(FOLDER / f"{name}.yaml")
    base, subject, memory = name.split("-")
    merged = lay_over(_read(FOLDER / "base" / f"{base}.yaml"), _read(FOLDER / "subject" / f"{subject}.yaml"))
    last = _read(FOLDER / "memory" / f"{memory}.yaml")
    for_bases = {other: last.pop(other, {}) for other in layer_names("base")}
    return lay_over(lay_over(merged, last), for_bases[base])


def family_of(name: str) -> str | None:
    """The model family that a layered preset is for; None for the others."""
    return _FAMILIES.get(name.partition("-")[0])


def over_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` settings laid over the preset they name under "preset"; without one, ``given``.

    Raises:
        ConfigError: an unknown preset.
    """
    name = given.get("preset")
    return lay_over(preset(name), given) if isinstance(name, str) else dict(given)


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of settings, ``above`` winning, section by section."""
    merged = dict(below)
    for section, value in above.items():
        own = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        lower = merged.get(section)
        merged[section] = {**lower, **own} if isinstance(lower, dict) and isinstance(own, Mapping) else own
    return merged


@cache
def _whole_presets() -> tuple[str, ...]:
    """The presets of one file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def _read(path: Path) -> dict[str, Any]:
    """A file's settings, the caller's to change."""
    return deepcopy(_parsed(path))


@cache
def _parsed(path: Path) -> dict[str, Any]:
    # Kept: the files are the package's own, and pages ask for what they say every second.
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
