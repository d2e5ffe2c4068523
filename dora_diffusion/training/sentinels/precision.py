"""Adapters and optimizer state are float32."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dora_diffusion.errors import TrainingError
from dora_diffusion.training.sentinels.sentinel import Sentinel, Watched
from dora_diffusion.training.stepper import Losses


class Precision(Sentinel):
    """In half precision a step of the learning rate is rounded away: a magnitude near 1 never moves in bfloat16."""

    def __init__(self, watched: Watched):
        super().__init__(watched)
        self._done = False

    def before_run(self) -> None:
        self._check()

    def after_step(self, losses: Losses) -> None:
        if not self._done:  # the optimizer makes its state in the first step
            self._check()
            self._done = True

    def _check(self) -> None:
        for name, tensor in self._tensors():
            # Integers are quantised state (8-bit optimizers), which is made for it.
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise TrainingError(
                    f"{name} is {str(tensor.dtype).removeprefix('torch.')}, and must be float32: in half precision "
                    "small updates are rounded away and the adapter does not learn. Something cast it. Only the base "
                    "may be cast (--mixed_precision does that); choose an --optimizer that keeps its state in float32."
                )

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        names: dict[Tensor, str] = {}
        for buffer in self.progress.adapter.buffers:
            name = names[buffer.parameter] = f"{buffer.component}'s {buffer.role}"
            yield f"The adapter ({name})", buffer.parameter
            if buffer.parameter.grad is not None:
                yield f"The adapter's gradient ({name})", buffer.parameter.grad
        for parameter, state in self.progress.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"The optimizer's {key} ({names.get(parameter, 'a parameter')})", value
