"""``checkpoint-<step>/``: everything that a run's next step depends on. Complete, or not there.

A run that is done leaves the same in ``final-<step>/``, unless that step has a checkpoint anyway: checkpoints are those
of diffusers' scripts, and a run can be extended from its very end.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.errors import FormatError, MachineError, TrainingError, some_of
from dora_diffusion.formats import read_safetensors, safetensors_bytes, write_bytes
from dora_diffusion.formats.checkpoint_folders import CHECKPOINT, FINAL, checkpoints, drafts
from dora_diffusion.training.ema import Ema
from dora_diffusion.training.optimizer_state import optimizer_state, restore_optimizer
from dora_diffusion.training.record import Record

ADAPTER, OPTIMIZER, EMA, TRAINER = "adapter.safetensors", "optimizer.safetensors", "ema.safetensors", "trainer.json"
MANIFEST = "manifest.json"  # name -> {"size": bytes, "blake2b": hexadecimal} of every other file


@dataclass
class Progress:
    """The moving parts of a run, and what it is held to.

    Attributes:
        guard: what a resume must find again, by name.
        learnt_from: of those in ``guard`` that are made of several files, what each is: a message names those that
            changed.
    """

    adapter: Adapter
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: Any
    guard: dict[str, Any]
    step: int = 0
    ema: Ema | None = None
    record: Record = field(default_factory=Record)
    learnt_from: dict[str, dict[str, str]] = field(default_factory=dict)


def save_checkpoint(folder: Path, progress: Progress, keep: int | None, name: str = CHECKPOINT) -> Path:
    """Write ``<name>-<step>`` into a temporary folder, flush, rename; then delete what is over the limit.

    Raises:
        MachineError: the disk is full or not writable; what was there stays.
    """
    target = folder / f"{name}-{progress.step}"
    fresh = folder / f".{target.name}.writing"
    for leftover in drafts(folder):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        contents = _contents(progress)
        for file, content in {**contents, MANIFEST: _manifest(contents)}.items():
            write_bytes(fresh / file, content)
        _remove(target)
        fresh.replace(target)
        _sync_folder(folder)
        _rotate(folder, target, keep)
    except OSError as error:
        raise MachineError(f"{target} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def load_checkpoint(checkpoint: Path, progress: Progress) -> None:
    """Put a run back where it was, to the last bit.

    Raises:
        TrainingError: the checkpoint is of another run (photos, processes, batch).
        FormatError: a file is missing, or not what was written; the run is as it was.
    """
    _verify(checkpoint)
    trainer = json.loads((checkpoint / TRAINER).read_text(encoding="utf-8"))
    for what, now in progress.guard.items():
        then = trainer["guard"].get(what)
        if then != now:
            raise TrainingError(
                f"{checkpoint.name} cannot be resumed: {_change(what, trainer, progress)}. Restore it, or start again "
                "with --overwrite."
            )
    # Everything is read before anything is changed: a damaged file must leave the run as it was.
    tensors, _ = read_safetensors(checkpoint / ADAPTER)
    moments, _ = read_safetensors(checkpoint / OPTIMIZER)
    averages = read_safetensors(checkpoint / EMA)[0] if progress.ema is not None else {}
    with torch.no_grad():
        for buffer in progress.adapter.buffers:
            buffer.parameter.copy_(tensors[buffer.name])
        for name, average in progress.ema.named().items() if progress.ema is not None else ():
            average.copy_(averages[name])
    restore_optimizer(progress.optimizer, moments, trainer["optimizer"])
    progress.schedule.load_state_dict(trainer["schedule"])
    # The schedule sets the optimizer's rates when it is stepped, not when it is loaded: the first step would run at
    # step 0's.
    for group, rate in zip(progress.optimizer.param_groups, progress.schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    if progress.scaler and trainer["scaler"]:
        progress.scaler.load_state_dict(trainer["scaler"])
    progress.step = trainer["step"]
    progress.record = Record(**trainer["record"])


def _change(what: str, trainer: dict[str, Any], progress: Progress) -> str:
    """How something a run is held to differs: "photos: 02.jpg was changed, 05.jpg is new"."""
    # Checkpoints of earlier versions do not know of files.
    then, now = trainer.get("learnt_from", {}).get(what), progress.learnt_from.get(what)
    changes = [] if then is None or now is None else list(_file_changes(then, now))
    if changes:
        return f"{what}: {some_of(changes)}"
    return f"{what} was {trainer['guard'].get(what)} and is {progress.guard[what]}"


def _file_changes(then: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            yield f"{name} is gone"
        elif name not in then:
            yield f"{name} is new"
        elif then[name] != now[name]:
            yield f"{name} was changed"


def _contents(progress: Progress) -> dict[str, bytes]:
    """Every file of a checkpoint but its manifest."""
    tensors, plain = optimizer_state(progress.optimizer)
    trainer = {
        "step": progress.step,
        "optimizer": plain,
        "schedule": _plain(progress.schedule.state_dict()),
        "scaler": progress.scaler.state_dict() if progress.scaler else None,
        "guard": progress.guard,
        "learnt_from": progress.learnt_from,
        "record": asdict(progress.record),
    }
    contents = {
        ADAPTER: safetensors_bytes({buffer.name: buffer.parameter for buffer in progress.adapter.buffers}, {}),
        OPTIMIZER: safetensors_bytes(tensors, {}),
        TRAINER: json.dumps(trainer, indent=1, sort_keys=True).encode(),
    }
    if progress.ema is not None:
        contents[EMA] = safetensors_bytes(progress.ema.named(), {})
    return contents


def _manifest(contents: dict[str, bytes]) -> bytes:
    entries = {name: {"size": len(content), "blake2b": _digest(content)} for name, content in contents.items()}
    return json.dumps(entries, indent=1, sort_keys=True).encode()


def _verify(checkpoint: Path) -> None:
    """Raises: FormatError: a file is missing, or is not byte for byte what was written."""
    try:
        entries = json.loads((checkpoint / MANIFEST).read_bytes())
        for name, entry in entries.items():
            content = (checkpoint / name).read_bytes()
            if len(content) != entry["size"] or _digest(content) != entry["blake2b"]:
                raise FormatError(
                    f"{checkpoint / name} is not what was written: it has {len(content)} bytes, of {entry['size']}, "
                    "or other ones."
                )
        if not entries.keys() >= {ADAPTER, OPTIMIZER, TRAINER}:
            raise FormatError(f"{checkpoint / MANIFEST} names {', '.join(entries) or 'no file'} and no more.")
    except OSError as error:
        raise FormatError(f"{error.filename} cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise FormatError(f"{checkpoint / MANIFEST} is not whole ({error}).") from None


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=32).hexdigest()


def _rotate(folder: Path, newest: Path, keep: int | None) -> None:
    """Delete the oldest but for ``keep``, which count the one just written whatever its number, and earlier ends."""
    if keep is None:
        return
    older = [path for path in checkpoints(folder) if path != newest]
    ends = [path for path in older if _is_end(path)]
    others = [path for path in older if not _is_end(path)]
    room = keep if _is_end(newest) else keep - 1
    for path in (*ends, *others[: max(0, len(others) - room)]):
        _remove(path)


def _is_end(checkpoint: Path) -> bool:
    return checkpoint.name.startswith(FINAL)


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; renamed first, so that a kill leaves no half of one under its name."""
    if checkpoint.is_dir():
        gone = checkpoint.with_name(f".{checkpoint.name}.deleting")
        shutil.rmtree(gone, ignore_errors=True)
        checkpoint.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Drop what JSON cannot hold: LambdaLR's functions, which are rebuilt from the settings."""
    return {key: value for key, value in state.items() if key != "lr_lambdas"} | {
        "lr_lambdas": [None] * len(state.get("lr_lambdas", []))
    }


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # it has no handles of folders; NTFS keeps a journal of renames
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
