"""Why a training ended without a result, in plain words, and what can be done about it with one click."""

import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import (
    AdapterError,
    ConfigError,
    DataError,
    ModelError,
    OutOfMemoryError,
    StudioError,
    UnstableError,
)

Code = Literal[
    "out_of_memory", "unstable", "disk_full", "base_missing", "photos", "settings", "killed", "interrupted", "broken"
]
RemedyName = Literal["resume", "halve_batch", "smaller", "checkpointing", "half_rate", "use_checkpoint", "retry"]

# The best first. Those that cannot help a particular job are left out of its failure.
REMEDIES: dict[Code, tuple[RemedyName, ...]] = {
    "out_of_memory": ("halve_batch", "smaller", "checkpointing"),
    "unstable": ("half_rate", "use_checkpoint"),
    "disk_full": ("resume",),
    "base_missing": ("retry",),
    "photos": ("retry",),
    "settings": (),
    "killed": ("resume", "halve_batch"),
    "interrupted": ("resume",),
    "broken": ("retry",),
}

_BY_KIND: tuple[tuple[type[Exception], Code], ...] = (
    (OutOfMemoryError, "out_of_memory"),
    (UnstableError, "unstable"),
    (ModelError, "base_missing"),
    (DataError, "photos"),
    (ConfigError, "settings"),
    (AdapterError, "settings"),
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_SMALLEST = 64


@dataclass(frozen=True)
class Remedy:
    """Something that helps. ``label``: what its button says ("Retry at 384 px")."""

    name: RemedyName
    label: str


@dataclass(frozen=True)
class Failure:
    """One failed or interrupted training. ``remedies``: the best first; only those that can help here."""

    code: Code
    message: str
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True)
class Levers:
    """The settings of a job that a remedy would change."""

    train_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    resolution: int
    learning_rate: float
    text_encoder_lr: float | None

    @classmethod
    def of(cls, config: TrainConfig, resolution: int) -> "Levers":
        """Those of a run that trains at ``resolution``, given or the base's own."""
        run, optim = config.run, config.optim
        return cls(
            run.train_batch_size,
            run.gradient_accumulation_steps,
            run.gradient_checkpointing,
            resolution,
            optim.learning_rate,
            optim.text_encoder_lr,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Change:
    """What a remedy changes: settings by dotted name, and the same in words. ``same_run``: the job itself goes on."""

    settings: Mapping[str, Any]
    words: str
    same_run: bool = False


def code_of(error: BaseException) -> Code:
    """What kind of failure an error is, whatever it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        if is_disk_full(seen):
            return "disk_full"
        seen = seen.__cause__ or seen.__context__
    return next((code for kind, code in _BY_KIND if isinstance(error, kind)), "broken")


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says so, by number or, where libraries have put it into their own words, by words."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    said = str(error)
    return any(os.strerror(number) in said for number in _DISK_FULL) or said.startswith("Too little room for ")


def failure(code: Code, message: str, levers: Levers, best_checkpoint: int | None) -> Failure:
    """The failure with the remedies that are left.

    Args:
        best_checkpoint: step of the last checkpoint whose adapter can be used; None without one.
    """
    remedies = []
    for name in REMEDIES[code]:
        if name == "use_checkpoint":
            label = f"Use step {best_checkpoint}" if best_checkpoint is not None else ""
        elif name in ("resume", "retry"):
            label = "Resume" if name == "resume" else "Try again"
        else:
            label = _label(name, levers)
        if label:
            remedies.append(Remedy(name, label))
    return Failure(code, message, tuple(remedies))


def plain(code: Code, said: str, step: int) -> str:
    """What happened, in a sentence for somebody who knows no flags. ``said``: the trainer's own words."""
    where = f" at step {step}" if step else ""
    if code == "out_of_memory":
        return f"The memory was not enough{where}."
    if code == "unstable":
        return f"Training became unstable{where}, and was stopped. Nothing good was written over."
    if code == "disk_full":
        return f"The disk is full. Training stopped{where}; make room, then let it go on."
    return said or "The training ended without a result."


def change(name: str, levers: Levers) -> Change:
    """What a remedy changes.

    Raises:
        StudioError: it can change nothing here.
    """
    made = _CHANGES[name](levers) if name in _CHANGES else None
    if made is None:
        raise StudioError(f"The remedy {name!r} cannot help this training. Choose another one.")
    return made


def _label(name: RemedyName, levers: Levers) -> str:
    """What its button says; empty where it can change nothing."""
    made = _CHANGES[name](levers)
    if made is None:
        return ""
    return {
        "halve_batch": f"Retry with {made.settings.get('run.train_batch_size')} photos at once",
        "smaller": f"Retry at {made.settings.get('data.resolution')} px",
        "checkpointing": "Go on with memory saving",
        "half_rate": "Retry at half the learning rate",
    }[name].replace("with 1 photos", "with one photo")


def _halve_batch(levers: Levers) -> Change | None:
    batch = levers.train_batch_size
    if batch < 2:
        return None
    factor = 2 if batch % 2 == 0 else next(n for n in range(3, batch + 1) if batch % n == 0)
    settings = {
        "run.train_batch_size": batch // factor,
        "run.gradient_accumulation_steps": levers.gradient_accumulation_steps * factor,
    }
    return Change(
        settings, f"{batch // factor} instead of {batch} photos at once, {factor} times a step: slower, the same result"
    )


def _smaller(levers: Levers) -> Change | None:
    step = 64 if levers.resolution >= 256 else 8
    size = int(levers.resolution * 0.75) // step * step
    if size < _SMALLEST:
        return None
    return Change({"data.resolution": size}, f"{size} instead of {levers.resolution} pixels a side")


def _checkpointing(levers: Levers) -> Change | None:
    if levers.gradient_checkpointing:
        return None
    return Change({"run.gradient_checkpointing": True}, "with memory saving: slower, the same result", same_run=True)


def _half_rate(levers: Levers) -> Change:
    settings: dict[str, Any] = {"optim.learning_rate": levers.learning_rate / 2}
    if levers.text_encoder_lr:
        settings["optim.text_encoder_lr"] = levers.text_encoder_lr / 2
    return Change(settings, f"learning rate {levers.learning_rate / 2:g} instead of {levers.learning_rate:g}")


_CHANGES = {
    "halve_batch": _halve_batch,
    "smaller": _smaller,
    "checkpointing": _checkpointing,
    "half_rate": _half_rate,
}
