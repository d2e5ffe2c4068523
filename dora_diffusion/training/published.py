"""The weights that others see: an average of those that are trained, where a run keeps one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dora_diffusion.training.checkpoint import Progress


def published_as(progress: Progress) -> str | None:
    """What previews and the adapter file show where that is not the weights that are trained."""
    if progress.ema is not None:
        return f"moving average of the weights, decay {progress.ema.decay:g}"
    if hasattr(progress.optimizer, "eval"):
        return "the optimizer's average of the weights"
    return None


@contextmanager
def published_weights(progress: Progress) -> Iterator[None]:
    """Within the block the adapter has the weights to publish; afterwards those it had, to the last bit.

    A schedule-free optimizer's ``eval`` and ``train`` undo each other up to rounding only, so the parameters are kept:
    a preview must not change the run.
    """
    if published_as(progress) is None:
        yield
        return
    parameters = [buffer.parameter for buffer in progress.adapter.buffers]
    trained = [parameter.detach().clone() for parameter in parameters]
    optimizer = progress.optimizer
    with torch.no_grad():
        if progress.ema is not None:
            _copy(progress.ema.averages, parameters)
        else:
            optimizer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if progress.ema is None:
            optimizer.train()  # type: ignore[attr-defined]
        _copy(trained, parameters)


@torch.no_grad()
def _copy(values: list[torch.Tensor], parameters: list[torch.nn.Parameter]) -> None:
    for value, parameter in zip(values, parameters, strict=True):
        parameter.copy_(value)
