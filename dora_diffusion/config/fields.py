"""How one setting is declared: default, range, one sentence of help, and whether it is part of a run's identity."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import did_you_mean


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any):
        """Check every value, whoever builds the settings: flags, YAML or Python.

        Raises:
            ConfigError: an unknown name, or a value out of range.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(" ".join(explain(type(self), error))) from None


def identity(default: Any, help: str, **limits: Any) -> Any:
    """A setting that makes the run what it is: resuming with another value is refused."""
    return Field(default, description=help, json_schema_extra={"identity": True}, **limits)


def free(default: Any, help: str, **limits: Any) -> Any:
    """A setting that may change between the parts of one run."""
    return Field(default, description=help, json_schema_extra={"identity": False}, **limits)


def walk(settings: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted name, field) for every leaf: the one list that flags, forms, docs and guards are made from."""
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from walk(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def is_identity(field: FieldInfo) -> bool:
    """Whether a resume must refuse another value of this field."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("identity") is True


def value_at(settings: BaseModel, dotted: str) -> Any:
    """The value of the leaf called ``dotted`` ("adapter.rank")."""
    value: Any = settings
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def explain(kind: type[BaseModel], error: ValidationError) -> list[str]:
    """One plain sentence for each fault pydantic found."""
    names = {name.rpartition(".")[2]: name for name, _ in walk(kind)}
    sentences = []
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        leaf = name.rpartition(".")[2]
        if fault["type"] == "extra_forbidden":
            place = (
                f" It belongs under {names[leaf].rpartition('.')[0]!r}." if leaf in names else did_you_mean(leaf, names)
            )
            sentences.append(f"Unknown setting {name!r}.{place}")
        else:
            rule = re.sub(r"^(Input|String|List|Value) should", "must", fault["msg"])
            sentences.append(f"{name} {rule}, got {fault['input']!r}.")
    return sentences
