"""The errors a user can cause. Every entry point prints them in plain words; anything else is a bug and keeps its
traceback.

A message says what is wrong, where, the rule, the value given and what to do.
"""

from collections.abc import Sequence


class DoraError(Exception):
    """Root of every error that a user's input or machine can cause."""


class ConfigError(DoraError):
    """A setting is unknown, out of range or contradicts another one."""


class MachineError(DoraError):
    """The machine lacks something: a device, a package, disk space, a permission."""


class OutOfMemoryError(MachineError):
    """The memory does not suffice, the GPU's or the machine's."""


class AdapterError(DoraError):
    """An adapter cannot be built, injected, loaded or merged."""


class ModelError(DoraError):
    """A base model cannot be found, read or used."""


class DataError(DoraError):
    """Photos or captions cannot be used."""


class FormatError(DoraError):
    """A file is not the format it should be."""


class TrainingError(DoraError):
    """A run cannot start, resume or go on."""


class UnstableError(TrainingError):
    """Losses or gradients are not finite, and will not get better by themselves."""


class StudioError(DoraError):
    """The web page was asked for something it cannot do."""


def about(seconds: float) -> str:
    """A length of time as people say it, for a message: 'about 40 s', 'about 12 min', 'about 2.5 h'."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 90 * 60 else f"about {seconds / 3600:.1f} h"


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list that may be long, for a message: 'a.jpg, b.jpg and 12 more'."""
    others = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + others
