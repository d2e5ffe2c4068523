"""What a run will need, from its first two steps: the first makes what stays, the second is like all others."""

import time

import torch

from dora_diffusion.machine import GIB, memory, peak_memory
from dora_diffusion.training.events import Planned

STEPS = 2
WORTH_TELLING = 8  # a run of fewer steps is over before anybody has read how long it takes


class Planner:
    """Measures the first steps of a run, or of a part of it. They are the run's own: nothing is done twice or undone.

    The optimizer makes its state at the end of the first step; the second has everything that any later step has, and
    its memory is the run's peak. Previews, which are drawn with more, are not counted.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.restart()

    def restart(self) -> None:
        """Measure afresh: what was before (loading, class images, steps of another size) is not the run's."""
        self._steps, self._began = 0, time.perf_counter()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def begin_step(self) -> None:
        """Call before each step."""
        self._began = time.perf_counter()

    def end_step(self, steps_left: int) -> Planned | None:
        """Call after each step: the plan once two are done, None before and after."""
        self._steps += 1
        if self._steps != STEPS:
            return None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds = steps_left * (time.perf_counter() - self._began)
        return Planned(_peak(self._device) / GIB, _whole_gib(self._device), str(self._device), seconds)


def _peak(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU since the planner began, or that the process ever held in RAM."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_memory()


def _whole_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory / GIB)
    return memory().total_gib
