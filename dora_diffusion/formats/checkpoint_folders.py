"""What a run's checkpoints are called, and which of them a folder holds."""

import re
from pathlib import Path

CHECKPOINT, FINAL = "checkpoint", "final"  # what a folder is called before its step


def checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, oldest first. One that lost a file counts: loading it says so, skipping it would not."""
    named = [path for path in folder.glob("*-*") if re.fullmatch(rf"({CHECKPOINT}|{FINAL})-[0-9]+", path.name)]
    return sorted((path for path in named if path.is_dir()), key=step_of)


def drafts(folder: Path) -> list[Path]:
    """What a process leaves that is killed as it writes or deletes a checkpoint."""
    return [path for name in (CHECKPOINT, FINAL) for path in folder.glob(f".{name}-*")]


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(checkpoint.name.split("-")[1])
