"""Between programs and the service: values checked by type before, answers as JSON after, errors in plain words."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.ui.endpoints.answers import as_json
from dora_diffusion.studio.ui.plain import plainly

Limit = Annotated[int, Field(ge=1, le=200)]
Offset = Annotated[int, Field(ge=0, le=10**9)]
Step = Annotated[int, Field(ge=0, le=10**9)]

_RULES = ConfigDict(str_max_length=4000, allow_inf_nan=False)


def endpoint(function: Callable[..., Any], log_file: Path) -> Callable[..., Any]:
    """``function`` for ``gr.api``: same name, hints and docstring.

    What a request gives is anything, whatever the hints say to those who read them. Each value is checked against its
    hint first (``Annotated`` limits included), except files, which ``uploads.received`` checks.
    """
    adapters = {
        name: TypeAdapter(parameter.annotation, config=_RULES)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "files"
    }

    @wraps(function)
    def checked(*values: Any, **named: Any) -> Any:
        given = inspect.signature(function).bind(*values, **named).arguments
        answer = function(**{name: _checked(name, value, adapters.get(name)) for name, value in given.items()})
        return tuple(map(as_json, answer)) if isinstance(answer, tuple) else as_json(answer)

    return plainly(log_file, say=str)(checked)


def _checked(name: str, value: Any, adapter: TypeAdapter[Any] | None) -> Any:
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise StudioError(f"{name}: {said[:1].lower()}{said[1:]}, got {str(value)[:80]!r}.") from None
