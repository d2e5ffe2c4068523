"""The GPUs of this machine, asked without torch: trainings run side by side on as many."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

TIMEOUT_S = 10.0
CPU = "cpu"


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver names it; ``index`` is what CUDA_VISIBLE_DEVICES takes."""

    index: str
    name: str
    gib: float


@cache
def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine; empty where there is none, or no driver's tool to ask."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = (_gpu(line) for line in done.stdout.splitlines())
    return tuple(gpu for gpu in found if gpu is not None)


def slots() -> tuple[str, ...]:
    """Where trainings may run at the same time: one a GPU, of those that this process may use, else the CPU alone."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not gpus():
        return (CPU,)
    if visible is None:
        return tuple(gpu.index for gpu in gpus())
    return tuple(name for name in map(str.strip, visible.split(",")) if name not in ("", "-1")) or (CPU,)


def environment(slot: str) -> dict[str, str]:
    """What a trainer's environment says of its slot."""
    return {} if slot == CPU else {"CUDA_VISIBLE_DEVICES": slot}


def _gpu(line: str) -> Gpu | None:
    try:
        index, name, mib = (part.strip() for part in line.split(","))
        return Gpu(index, name, float(mib) / 1024)
    except ValueError:
        return None
