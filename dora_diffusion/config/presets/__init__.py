"""Presets: named settings that lie between the defaults and a user's own. One YAML file each, in this folder."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import did_you_mean

FOLDER = Path(__file__).parent


@cache
def preset_names() -> tuple[str, ...]:
    """Every preset, by name."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset, section by section.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in preset_names():
        hint = did_you_mean(name, list(preset_names()))
        raise ConfigError(f"Unknown preset {name!r}; known: {', '.join(preset_names())}.{hint}")
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def over_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` settings laid over the preset they name under "preset"; without one, ``given``.

    Raises:
        ConfigError: an unknown preset.
    """
    name = given.get("preset")
    if not isinstance(name, str):
        return dict(given)
    merged: dict[str, Any] = preset(name)
    for section, value in given.items():
        own = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        below = merged.get(section)
        merged[section] = {**below, **own} if isinstance(below, dict) and isinstance(own, Mapping) else own
    return merged
