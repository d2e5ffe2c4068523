"""accelerate, kept to what it is good at: processes, devices, precision, trackers."""

import contextlib
import ctypes
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from dora_diffusion.config import RunConfig
from dora_diffusion.errors import MachineError
from dora_diffusion.inference.device import PRECISIONS
from dora_diffusion.machine import import_what_keeps_a_process_group, launched_processes, require_package

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and numbers of glibc's malloc.h
TRACKERS = ("tensorboard", "wandb", "trackio")


def make_accelerator(config: RunConfig) -> Accelerator:
    """The accelerator of one run.

    Raises:
        MachineError: a tracker is not installed, or the machine lacks the precision asked for.
    """
    wanted = _wanted_trackers(config.report_to)
    if "LOCAL_RANK" in os.environ:
        import_what_keeps_a_process_group()
    # accelerate keeps its settings for the life of the process; a second run in it (the studio's, a test's) brings
    # its own.
    AcceleratorState._reset_state(False)
    try:
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            cpu=config.cpu,
            log_with=wanted or None,
            project_dir=str(config.output_dir / config.logging_dir),
        )
    except ValueError as error:
        raise MachineError(
            f"This machine cannot train with mixed_precision={config.mixed_precision}: {error}"
        ) from None
    _check(accelerator)
    torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def _wanted_trackers(report_to: str) -> list[str]:
    """Names from "tensorboard,wandb"; "all" is every tracker that is installed.

    Raises:
        MachineError: one is not known, or not installed.
    """
    wanted = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    if wanted == ["all"]:
        return [name for name in TRACKERS if find_spec(name)]
    for name in wanted:
        if name not in TRACKERS:
            raise MachineError(f"report_to knows {', '.join(TRACKERS)} and none, got {name!r}.")
        require_package(name, "trackers", f"--report_to {name}")
    return wanted


def _check(accelerator: Accelerator) -> None:
    """Raises: MachineError: accelerate took less than was asked for without a word."""
    if accelerator.mixed_precision == "fp16" and accelerator.scaler is None:
        raise MachineError(
            f"mixed_precision=fp16 needs a GPU, this is {accelerator.device.type}: its small gradients would be lost. "
            "Use --mixed_precision no, or bf16."
        )
    launched = launched_processes()
    if launched > 1 and accelerator.num_processes == 1:
        raise MachineError(
            f"{launched} processes were launched and found no GPUs to share the work on; each would train by itself. "
            "Add --cpu after the script's name to train on the CPU, or launch one process."
        )


def keep_freed_memory() -> None:
    """Ask glibc not to hand large blocks back to the system after every step: on a CPU that took half of the time.

    Does nothing where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(parameter, 2**30)


def base_dtype(accelerator: Accelerator) -> torch.dtype:
    """The precision of the frozen base."""
    return PRECISIONS.get(accelerator.mixed_precision, torch.float32)


def average_gradients(accelerator: Accelerator, gradients: list[torch.Tensor]) -> None:
    """Average over the processes, in place; one exchange for each flat buffer."""
    if accelerator.num_processes > 1:
        for gradient in gradients:
            gradient.copy_(accelerator.reduce(gradient, reduction="mean"))


def start_trackers(accelerator: Accelerator, settings: dict[str, Any]) -> None:
    """Hand the run's settings to the trackers, flattened to what they can show.

    Raises:
        MachineError: one of them cannot begin: nobody is logged in, its server is not there.
    """
    if not (accelerator.trackers or accelerator.log_with):
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        accelerator.init_trackers("dora_diffusion", config={name: str(value) for name, value in settings.items()})
    except Exception as error:  # each tracker has errors of its own
        names = ", ".join(str(getattr(kind, "value", kind)) for kind in accelerator.log_with)
        first = (str(error).splitlines() or ["no message"])[0].rstrip(".")
        raise MachineError(
            f"The tracker cannot begin (--report_to {names}): {first}. Set it up first, or leave --report_to out."
        ) from None


def show_pictures(accelerator: Accelerator, pictures: Mapping[str, Sequence[Image.Image]], step: int) -> None:
    """Hand pictures, by title, to every tracker of the run; those of one title have one size."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            stacks = {title: np.stack([np.asarray(image) for image in images]) for title, images in pictures.items()}
            tracker.log_images(stacks, step=step, dataformats="NHWC")
        elif hasattr(tracker, "log_images"):
            tracker.log_images({title: list(images) for title, images in pictures.items()}, step=step)
        else:  # trackio's tracker in accelerate has no word for pictures; its log takes them one by one
            take = require_package(tracker.name, "trackers", f"--report_to {tracker.name}").Image
            named = {f"{title}/{n}": image for title, images in pictures.items() for n, image in enumerate(images)}
            tracker.log({title: take(image) for title, image in named.items()}, step=step)
