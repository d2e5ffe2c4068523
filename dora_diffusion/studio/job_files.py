"""What a training leaves in its folder, read while it is written: losses, previews, likeness, adapters."""

import json
import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, cast

WEIGHTS = "pytorch_lora_weights.safetensors"
LIKENESS = "likeness.jsonl"
_PREVIEW = re.compile(r"step-(\d+)-(\d+)-(\d+)\.png")
_ADAPTER = re.compile(r"step-(\d+)\.safetensors")
_REMEMBERED = 32


def run_folder(job: Path) -> Path:
    """The trainer's ``output_dir``."""
    return job / "run"


def photo_names(job: Path) -> list[str]:
    """The photos of a job, by name."""
    return sorted(file.name for file in _entries(job / "photos"))


def adapter_path(job: Path, step: int) -> Path:
    """Where the adapter of a checkpoint is kept."""
    return job / "adapters" / f"step-{step:06d}.safetensors"


def adapter_file(job: Path, step: int | None) -> Path | None:
    """The adapter of a step, or of the run's end; None where it is not there."""
    file = run_folder(job) / WEIGHTS if step is None else adapter_path(job, step)
    return file if file.is_file() else None


def adapter_steps(job: Path) -> list[int]:
    """The steps whose adapter is there, in order."""
    found = (_ADAPTER.fullmatch(file.name) for file in _entries(job / "adapters"))
    return sorted(int(match[1]) for match in found if match)


def preview_files(job: Path) -> Iterator[tuple[int, int, int, Path]]:
    """(step, number of the prompt, seed, file) of every preview, in this order."""
    for file in sorted(_entries(run_folder(job) / "samples")):
        match = _PREVIEW.fullmatch(file.name)
        if match:
            yield int(match[1]), int(match[2]), int(match[3]), file


@dataclass(frozen=True)
class Likenesses:
    """Of one previewed step: the mean, and that of each picture by its file's name."""

    mean: float
    pictures: dict[str, float]


def likenesses(job: Path) -> dict[int, Likenesses]:
    """What the eye said of the previews, by step; of a step that was done again, the last."""
    found = {}
    for line in _lines(job / LIKENESS):
        try:
            entry = json.loads(line)
            pictures = {str(name): float(value) for name, value in entry["pictures"].items()}
            found[int(entry["step"])] = Likenesses(float(entry["likeness"]), pictures)
        except (ValueError, TypeError, KeyError, AttributeError):  # the last line may be half written
            continue
    return dict(sorted(found.items()))


@dataclass
class _Log:
    """What was read of a metrics file so far."""

    inode: int = 0
    offset: int = 0
    losses: dict[int, float] = field(default_factory=dict)
    ordered: list[tuple[int, float]] = field(default_factory=list)


class LossLogs:
    """Losses of several jobs, each read on from where the last look ended."""

    def __init__(self) -> None:
        self._logs: OrderedDict[Path, _Log] = OrderedDict()
        self._lock = Lock()

    def read(self, file: Path) -> list[tuple[int, float]]:
        """(step, loss) of every logged step, in order; of a step that was done again after a resume, the last."""
        with self._lock:
            log = self._logs.pop(file, None) or _Log()
            self._logs[file] = log
            if len(self._logs) > _REMEMBERED:
                self._logs.popitem(last=False)
            _read_on(log, file)
            return list(log.ordered)


def _read_on(log: _Log, file: Path) -> None:
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_ino != log.inode or status.st_size < log.offset:  # a resumed run wrote it anew
                log.inode, log.offset = status.st_ino, 0
                log.losses.clear()
                log.ordered.clear()
            stream.seek(log.offset)
            fresh = stream.read()
    except OSError:
        log.inode, log.offset = 0, 0
        log.losses.clear()
        log.ordered.clear()
        return
    whole = fresh[: fresh.rfind(b"\n") + 1]  # the last line may be half written
    log.offset += len(whole)
    again = False
    for line in whole.splitlines():
        entry = _step_and_loss(line)
        if entry is not None:
            again = again or bool(log.ordered and entry[0] <= log.ordered[-1][0])
            log.losses[entry[0]] = entry[1]
            log.ordered.append(entry)
    if again:
        log.ordered = sorted(log.losses.items())


def _step_and_loss(line: bytes) -> tuple[int, float] | None:
    try:
        entry = json.loads(line)
        step, loss = entry["step"], number(entry["loss"])
    except (ValueError, TypeError, KeyError):
        return None
    return (step, loss) if isinstance(step, int) and loss is not None else None


def number(value: Any) -> float | None:
    """``value`` as a finite number, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(cast(float, value)) if is_number else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
