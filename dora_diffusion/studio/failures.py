"""Why a training ended without a result, in plain words, and what can be done about it with one click."""

from dataclasses import dataclass
from typing import Literal

Code = Literal[
    "out_of_memory", "unstable", "disk_full", "base_missing", "photos", "settings", "killed", "interrupted", "broken"
]
RemedyName = Literal["resume", "halve_batch", "smaller", "checkpointing", "half_rate", "use_checkpoint", "retry"]


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
