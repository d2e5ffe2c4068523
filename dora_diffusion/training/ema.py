"""A moving average of an adapter's parameters."""

import torch
from torch import Tensor

from dora_diffusion.adapters import Adapter


class Ema:
    """``average <- d * average + (1 - d) * parameter`` after every step, ``d = min(decay, (1 + n) / (10 + n))``.

    ``n`` is the number of steps done: young averages forget their start quickly (as in TensorFlow's and diffusers'
    moving averages). It is the run's step number, so nothing besides the averages has to be restored.
    """

    def __init__(self, adapter: Adapter, decay: float):
        self._adapter = adapter
        self.decay = decay
        self.averages = [buffer.parameter.detach().clone() for buffer in adapter.buffers]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number ``step``, counted from 1."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for average, buffer in zip(self.averages, self._adapter.buffers, strict=True):
            average.lerp_(buffer.parameter.detach().to(average.device), weight)

    def named(self) -> dict[str, Tensor]:
        """The averages by their buffers' names, for a checkpoint."""
        return {buffer.name: average for buffer, average in zip(self._adapter.buffers, self.averages, strict=True)}
