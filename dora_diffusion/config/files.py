"""Settings as YAML: read strictly, written so that the same run comes back."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from dora_diffusion.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_yaml(kind: type[Model], path: Path) -> Model:
    """Read settings from a YAML file.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest known one), or a value out of range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold settings by name, got {type(content).__name__}.")
    return build(kind, content, str(path))


def build(kind: type[Model], content: dict[str, Any], where: str) -> Model:
    """Settings from nested dictionaries. Raises: ConfigError in one line, naming ``where``."""
    try:
        return kind(**content)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def dump_yaml(settings: BaseModel) -> str:
    """The settings as YAML, every value written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
