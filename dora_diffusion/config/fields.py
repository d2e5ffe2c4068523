"""How one setting is declared: default, range, one sentence of help, and whether it is part of a run's identity."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


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
