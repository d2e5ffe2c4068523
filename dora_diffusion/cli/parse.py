"""Flags from settings: tyro derives them, and its error boxes are re-told in a line or two."""

import contextlib
import io
import re
from pathlib import Path
from typing import TypeVar

import tyro
from pydantic import BaseModel

from dora_diffusion.cli.aliases import apply_aliases
from dora_diffusion.config.fields import walk
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def parse(kind: type[Model], arguments: list[str], command: str) -> Model:
    """Settings from flags; a leading ``*.yaml`` gives the defaults that the flags override.

    ``--help`` prints and exits.

    Raises:
        ConfigError: an unknown flag (with the nearest one), a value that is none, or a broken YAML file.
    """
    default = None
    if arguments and not arguments[0].startswith("-") and Path(arguments[0]).suffix in (".yaml", ".yml"):
        default = load_yaml(kind, Path(arguments[0]))
        arguments = arguments[1:]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            settings, unknown = tyro.cli(
                kind,
                args=apply_aliases(arguments),
                default=default,
                prog=f"dora-diffusion {command}",
                use_underscores=True,
                config=(tyro.conf.OmitArgPrefixes,),
                return_unknown_args=True,
            )
    except SystemExit as ending:
        if ending.code in (0, None):
            raise
        raise ConfigError(f"{_plain(printed.getvalue())} See: dora-diffusion {command} --help") from None
    if unknown:
        flags = [f"--{name.rpartition('.')[2]}" for name, _ in walk(kind)]
        hint = did_you_mean(unknown[0], flags) if unknown[0].startswith("-") else " A folder or prompt with spaces needs quotes."
        raise ConfigError(f"Unknown argument {unknown[0]!r}.{hint} See: dora-diffusion {command} --help")
    return settings


def _plain(box: str) -> str:
    """An error box's text: no frame, no title, no pointer to the help."""
    lines = [re.sub(r"[╭╮╰╯│─]+", " ", line).strip() for line in box.splitlines()]
    kept = [line for line in lines[1:] if line and not line.startswith("For full helptext")]
    text = " ".join(kept).partition("Argument helptext:")[0].strip().replace("Error parsing ", "")
    return text or "The arguments cannot be read."
