"""Run one stage of the recipe: its settings from text, its place in the work folder, what it starts from."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import torch
import yaml
from pydantic import BaseModel, ValidationError

from dora_diffusion.config.fields import explain
from dora_diffusion.config.files import build
from dora_diffusion.errors import ConfigError, MachineError, TrainingError
from dora_diffusion.toybox.recipe import STAGES
from dora_diffusion.toybox.recipe.loop import Log
from dora_diffusion.toybox.recipe.processes import here, together, wait_for_all
from dora_diffusion.toybox.recipe.unpack import is_packed, unpack

PACKED = "model"  # the folder of the stage "pack"

# What each stage starts from: the folders of the work folder that must be there.
NEEDS = {
    "autoencoder": (),
    "diffusion": ("autoencoder",),
    "eye": ("autoencoder",),
    "pack": ("autoencoder", "diffusion"),
}


def stage_settings(stage: str, changes: Sequence[str] = (), smoke: bool = False) -> Any:
    """The settings of ``stage``, those of a full run or of a smoke run, with ``changes`` ("loop.steps=500").

    Raises:
        ConfigError: an unknown stage or setting, or a value out of range.
    """
    kind: Any = get_type_hints(STAGES.load(stage))["settings"]
    values = (kind.smoke() if smoke else kind()).model_dump()
    for change in changes:
        _put(values, change)
    try:
        return build(kind, values, f"stage {stage}")
    except ValidationError as error:
        raise ConfigError(" ".join(explain(kind, error))) from None


def run_stage(
    stage: str,
    settings: BaseModel,
    work_dir: Path,
    from_dir: Path | None = None,
    device: str = "",
    minutes: float | None = None,
    log: Log = lambda line: None,
) -> Path:
    """Run ``stage`` in its folder of ``work_dir``; returns that folder.

    Where ``torchrun`` started this process beside others, they train together: each takes a GPU and draws batches of
    its own, and the first one alone writes and logs.

    Args:
        from_dir: another work folder, or a packed model; what ``work_dir`` lacks of this stage's last output and of the
            stages before it is copied from there.
        device: "cuda", "cpu"; empty: the fastest there is.
        minutes: end by then, and save; the learning rate then falls by the time.

    Raises:
        ConfigError: several processes, for a stage that does not train.
        TrainingError: a stage before this one was not run.
        MachineError: there is no such device, not one for each process, or a process is not reached.
        DoraError: whatever else the stage finds wrong; the message says what to do.
    """
    function = STAGES.load(stage)
    place = work_dir / (PACKED if stage == "pack" else stage)
    before = work_dir if stage == "pack" else work_dir / "autoencoder"
    with together(choose_device(device)) as own_device:
        if stage == "pack" and here().count > 1:
            raise ConfigError(
                f"The stage pack is the work of one process, got {here().count}. Run it without torchrun."
            )
        _gather(stage, work_dir, from_dir)
        told = log if here().is_first else _say_nothing
        function(settings, place, before if NEEDS[stage] else None, own_device, minutes, told)
        told(f"{stage} is in {place}")
    return place


def _gather(stage: str, work_dir: Path, from_dir: Path | None) -> None:
    """Copy what the stage starts from into the work folder, and see that it is there."""
    if here().is_first:
        for name in [*NEEDS[stage], *(("eye",) if stage == "pack" else (stage,))]:
            _bring(name, work_dir, from_dir)
    wait_for_all()
    for name in NEEDS[stage]:
        if not (work_dir / name).is_dir():
            looked = f"{work_dir} nor {from_dir}" if from_dir else f"{work_dir}"
            raise TrainingError(
                f"The stage {stage} starts from the stage {name}, and there is no folder {name} in {looked}. "
                f"Run --stage {name} first, or give the work folder that has it as --from_dir."
            )


def _say_nothing(line: str) -> None:
    """The log of a process that is not the first one."""


def choose_device(name: str) -> str:
    """``name``, or the fastest device where it is empty.

    Raises:
        MachineError: torch cannot use it.
    """
    if not name:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError(f"--device {name}: torch finds no CUDA device here. Leave it out to train on the CPU.")
    return name


def _bring(name: str, work_dir: Path, from_dir: Path | None) -> None:
    """Copy a stage's folder from another work folder, or from a packed model, unless there is one already."""
    if from_dir is None or (work_dir / name).exists():
        return
    if is_packed(from_dir):
        unpack(from_dir, name, work_dir / name)
    elif (from_dir / name).is_dir():
        shutil.copytree(from_dir / name, work_dir / name)


def _put(values: dict[str, Any], change: str) -> None:
    """Set ``name=value`` in nested settings; the value is read as YAML."""
    name, equals, text = change.partition("=")
    if not equals:
        raise ConfigError(f"A setting is written name=value (loop.steps=500), got {change!r}.")
    *path, leaf = name.strip().split(".")
    for step in path:
        values = values.setdefault(step, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{step} in {name!r} is a single setting, not a group.")
    try:
        values[leaf] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"The value of {name} cannot be read: {text!r}.") from None
