"""``checkpoint-<step>/``: everything that a run's next step depends on. Complete, or not there."""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters import Adapter
from dora_diffusion.errors import FormatError, MachineError, TrainingError
from dora_diffusion.formats import read_safetensors, write_bytes, write_safetensors
from dora_diffusion.training.record import Record

ADAPTER, OPTIMIZER, TRAINER = "adapter.safetensors", "optimizer.safetensors", "trainer.json"


@dataclass
class Progress:
    """The moving parts of a run."""

    adapter: Adapter
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: Any
    guard: dict[str, Any]
    step: int = 0
    record: Record = field(default_factory=Record)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    named = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-[0-9]+", path.name)]
    return sorted((path for path in named if (path / TRAINER).is_file()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(checkpoint.name.split("-")[1])


def save_checkpoint(folder: Path, progress: Progress, keep: int | None) -> Path:
    """Write ``checkpoint-<step>`` into a temporary folder, flush, rename; then delete what is over the limit.

    Raises:
        MachineError: the disk is full or not writable; what was there stays.
    """
    target = folder / f"checkpoint-{progress.step}"
    fresh = folder / f".{target.name}.writing"
    for leftover in folder.glob(".checkpoint-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        write_safetensors(fresh / ADAPTER, {_buffer_name(b): b.parameter for b in progress.adapter.buffers}, {})
        tensors, plain = _optimizer_state(progress.optimizer)
        write_safetensors(fresh / OPTIMIZER, tensors, {})
        trainer = {
            "step": progress.step,
            "optimizer": plain,
            "schedule": _plain(progress.schedule.state_dict()),
            "scaler": progress.scaler.state_dict() if progress.scaler else None,
            "guard": progress.guard,
            "record": asdict(progress.record),
        }
        write_bytes(fresh / TRAINER, json.dumps(trainer, indent=1, sort_keys=True).encode())
        _remove(target)
        fresh.replace(target)
        _sync_folder(folder)
        for old in checkpoints(folder)[: -keep if keep else 0]:
            _remove(old)
    except OSError as error:
        raise MachineError(f"{target} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def load_checkpoint(checkpoint: Path, progress: Progress) -> None:
    """Put a run back where it was, to the last bit.

    Raises:
        TrainingError: the checkpoint is of another run (photos, processes, batch).
        FormatError: a file is not whole.
    """
    try:
        trainer = json.loads((checkpoint / TRAINER).read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{checkpoint / TRAINER} is not whole ({error}).") from None
    for what, now in progress.guard.items():
        then = trainer["guard"].get(what)
        if then != now:
            raise TrainingError(
                f"{checkpoint.name} cannot be resumed: {what} was {then} and is {now}. Restore it, or start again with "
                "--overwrite."
            )
    # Everything is read before anything is changed: a damaged file must leave the run as it was.
    tensors, _ = read_safetensors(checkpoint / ADAPTER)
    moments, _ = read_safetensors(checkpoint / OPTIMIZER)
    with torch.no_grad():
        for buffer in progress.adapter.buffers:
            buffer.parameter.copy_(tensors[_buffer_name(buffer)])
    _restore_optimizer(progress.optimizer, moments, trainer["optimizer"])
    progress.schedule.load_state_dict(trainer["schedule"])
    # The schedule sets the optimizer's rates when it is stepped, not when it is loaded: the first step would run at
    # step 0's.
    for group, rate in zip(progress.optimizer.param_groups, progress.schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    if progress.scaler and trainer["scaler"]:
        progress.scaler.load_state_dict(trainer["scaler"])
    progress.step = trainer["step"]
    progress.record = Record(**trainer.get("record", {}))  # runs of earlier versions kept none


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; renamed first, so that a kill leaves no half of one under its name."""
    if checkpoint.is_dir():
        gone = checkpoint.with_name(f".{checkpoint.name}.deleting")
        shutil.rmtree(gone, ignore_errors=True)
        checkpoint.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _buffer_name(buffer: Any) -> str:
    return f"{buffer.component}.{buffer.role}"


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's tensors by "parameter.key", and the rest."""
    state = optimizer.state_dict()["state"]
    tensors = {f"{k}.{key}": v for k, entry in state.items() for key, v in entry.items() if isinstance(v, Tensor)}
    plain = {f"{k}.{key}": v for k, entry in state.items() for key, v in entry.items() if not isinstance(v, Tensor)}
    return tensors, plain


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **plain}.items():
        parameter, _, key = name.partition(".")
        state.setdefault(int(parameter), {})[key] = value
    optimizer.load_state_dict({**whole, "state": state})


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Drop what JSON cannot hold: LambdaLR's functions, which are rebuilt from the settings."""
    return {key: value for key, value in state.items() if key != "lr_lambdas"} | {
        "lr_lambdas": [None] * len(state.get("lr_lambdas", []))
    }


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
