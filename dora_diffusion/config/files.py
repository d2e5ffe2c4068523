"""Settings as YAML: read strictly, written so that the same run comes back."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from dora_diffusion.config.fields import walk
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import did_you_mean

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans: YAML 1.1 reads ``mixed_precision: no`` as False."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, regex) for tag, regex in resolvers if tag != _BOOL or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(kind: type[Model], path: Path) -> Model:
    """Read settings from a YAML file.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest known one), or a value out of range.
    """
    return build(kind, read_yaml(path), str(path))


def read_yaml(path: Path) -> dict[Any, Any]:
    """What a YAML file of settings holds, by name.

    Raises:
        ConfigError: no such file, not YAML, or something else than names with values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold settings by name, got {type(content).__name__}.")
    return content


def build(kind: type[Model], content: dict[Any, Any], where: str) -> Model:
    """Settings from nested dictionaries; an empty section keeps its defaults.

    Raises:
        ConfigError: in one line, beginning with ``where`` if that is not empty: an unknown name, or a value out of
            range.
    """
    given = {name: {} if value is None and _section(kind, name) else value for name, value in content.items()}
    homes = {dotted.rpartition(".")[2]: dotted.rpartition(".")[0] for dotted, _ in walk(kind)}
    try:
        _check_names(kind, given, homes)
        return kind(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


def _section(kind: type[BaseModel], name: object) -> type[BaseModel] | None:
    """The settings called ``name`` inside ``kind``; None where that is a single setting, or nothing."""
    field = kind.model_fields.get(name) if isinstance(name, str) else None
    inner = field.annotation if field else None
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _check_names(kind: type[BaseModel], content: dict[Any, Any], homes: dict[str, str], prefix: str = "") -> None:
    """Refuse a name that is none, with the nearest one, or with the section it belongs to (``homes``, by leaf name)."""
    for name, value in content.items():
        inner = _section(kind, name)
        if name not in kind.model_fields:
            home, word = homes.get(name), str(name)
            hint = did_you_mean(word, [*kind.model_fields]) or did_you_mean(word, [*homes])
            raise ConfigError(f"Unknown setting {prefix + word!r}.{f' It belongs under {home!r}.' if home else hint}")
        if inner is not None and not isinstance(value, dict):
            raise ConfigError(f"{prefix}{name} must hold settings by name, got {value!r}.")
        if inner is not None:
            _check_names(inner, value, homes, f"{prefix}{name}.")


def dump_yaml(settings: BaseModel) -> str:
    """The settings as YAML, every value written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
