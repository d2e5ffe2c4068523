"""The errors a user can cause. Every entry point prints them in plain words; anything else is a bug and keeps its
traceback.

A message says what is wrong, where, the rule, the value given and what to do.
"""


class DoraError(Exception):
    """Root of every error that a user's input or machine can cause."""


class ConfigError(DoraError):
    """A setting is unknown, out of range or contradicts another one."""


class MachineError(DoraError):
    """The machine lacks something: a device, a package, disk space, a permission."""


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


class StudioError(DoraError):
    """The web page was asked for something it cannot do."""
