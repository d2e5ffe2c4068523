"""Flags from settings: tyro derives them, and its error boxes are re-told in a line or two."""

import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro
from pydantic import BaseModel

from dora_diffusion.cli.aliases import REPLACED, apply_aliases, canonical
from dora_diffusion.config.fields import walk
from dora_diffusion.config.files import build, read_yaml
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import did_you_mean

Model = TypeVar("Model", bound=BaseModel)

# What tyro's boxes say, and what is said instead.
_VALUE = re.compile(r"Error parsing (?P<flag>--\w+): .*(?P<what>literal for int|string to float).*?: (?P<given>'.*'?)")
_CHOICE = re.compile(
    r"invalid choice (?P<given>'.*') for argument '(?P<flag>--\w+)'\. Expected one of \((?P<known>.*)\)"
)
# Lines are arguments: "--preset", then its value, in the same one or the next.
_PRESET = re.compile(r"^--preset[=\n](?P<name>[^-\n][^\n]*)$", re.MULTILINE)
# The flags of what a command is about, which other programs take without a flag.
_SUBJECTS = ("--adapter", "--adapters", "--instance_data_dir")
_MISSING = re.compile(r"Missing value for argument '(?P<flag>--\w+)'")


def parse(kind: type[Model], arguments: list[str], command: str, takes: str = "[CONFIG.yaml]") -> Model:
    """Settings from flags; a leading ``*.yaml`` gives the defaults that the flags override.

    ``--help`` prints and exits; ``takes`` is what it shows between the command and the flags.

    Raises:
        ConfigError: an unknown flag (with the nearest one), a value that is none, or a broken YAML file.
    """
    default, arguments = _below_the_flags(kind, arguments)
    flags = {f"--{name.rpartition('.')[2]}" for name, _ in walk(kind)}
    switches = frozenset(f"--{name.rpartition('.')[2]}" for name, field in walk(kind) if field.annotation is bool)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            settings, unknown = tyro.cli(
                kind,
                args=apply_aliases(arguments, flags, switches),
                default=default,
                prog=f"dora-diffusion {command} {takes}",
                use_underscores=True,
                config=(tyro.conf.OmitArgPrefixes,),
                return_unknown_args=True,
            )
    except SystemExit as ending:
        if ending.code in (0, None):
            raise
        raise ConfigError(f"{_plain(printed.getvalue())} See: dora-diffusion {command} --help") from None
    if unknown:
        hint = _hint(unknown[0], arguments, flags, command, takes)
        raise ConfigError(f"Unknown argument {unknown[0]!r}.{hint} See: dora-diffusion {command} --help")
    return cast(Model, settings)


def take_file(kind: type[BaseModel], arguments: list[str]) -> tuple[str | None, list[str]]:
    """The file that a command is about, wherever it stands among its flags, and the flags; None where there is none."""
    valued = {f"--{name.rpartition('.')[2]}" for name, field in walk(kind) if field.annotation is not bool}
    before = ["", *arguments]
    for k, argument in enumerate(arguments):
        flag, equals, _ = canonical(before[k])
        if not argument.startswith("-") and (equals or flag not in valued):
            return argument, [*arguments[:k], *arguments[k + 1 :]]
    return None, arguments


def _below_the_flags(kind: type[Model], arguments: list[str]) -> tuple[Model | None, list[str]]:
    """What the flags override, and the flags: the preset that one of them names, under a leading ``*.yaml``."""
    given: dict[str, Any] = {}
    where = ""
    if arguments and not arguments[0].startswith("-") and Path(arguments[0]).suffix in (".yaml", ".yml"):
        where, arguments = arguments[0], arguments[1:]
        given = read_yaml(Path(where))
    if "preset" in kind.model_fields and (named := _PRESET.search("\n".join(arguments))):
        given["preset"] = named["name"]
    return (build(kind, given, where) if given or where else None), arguments


def _hint(argument: str, arguments: list[str], flags: set[str], command: str, takes: str) -> str:
    """What may have been meant by one of the arguments that is no flag of the command, or no flag at all."""
    if argument.startswith("-"):
        if takes == "FILE" and argument.partition("=")[0] in _SUBJECTS:
            return f" The file comes first, without a flag: dora-diffusion {command} FILE."
        aliases = {alias for alias, meaning in REPLACED.items() if meaning[0] in flags}
        return did_you_mean(argument.partition("=")[0], sorted(flags | aliases))
    if Path(argument).suffix in (".yaml", ".yml"):
        return " A settings file comes first, before the flags."
    subject = next((flag for flag in _SUBJECTS if flag in flags), None)
    stands_alone = argument == arguments[0] or Path(argument).exists()
    if subject is not None and stands_alone and not any(canonical(one)[0] == subject for one in arguments):
        return f" It is given with its flag: dora-diffusion {command} {subject} {shlex.quote(argument)}."
    return " A folder or prompt with spaces needs quotes."


def _plain(box: str) -> str:
    """An error box's text: no frame, no title, no pointer to the help, no Python."""
    lines = [re.sub(r"[╭╮╰╯│─]+|-{5,}", " ", line).strip() for line in box.splitlines()]
    kept = [line for line in lines[1:] if line and not line.startswith("For full helptext")]
    text = " ".join(kept).partition("Argument helptext:")[0].strip()
    if found := _VALUE.search(text):
        number = "a whole number" if found["what"] == "literal for int" else "a number"
        return f"{found['flag']} must be {number}, got {found['given']}."
    if found := _CHOICE.search(text):
        known = sorted(re.findall(r"'([^']*)'", found["known"]))
        hint = did_you_mean(found["given"].strip("'"), known)
        return f"{found['flag']} must be one of {', '.join(known)}, got {found['given']}.{hint}"
    if found := _MISSING.search(text):
        return f"{found['flag']} needs a value."
    return text.replace("Error parsing ", "") or "The arguments cannot be read."
