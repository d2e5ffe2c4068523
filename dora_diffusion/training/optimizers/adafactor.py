"""Adafactor (arXiv:1804.04235), transformers'."""

from typing import Any

import torch
from torch import nn

from dora_diffusion.adapters import Adapter
from dora_diffusion.adapters.flat import FlatBuffer
from dora_diffusion.config import OptimConfig
from dora_diffusion.training.optim import parameter_groups
from dora_diffusion.training.optimizers.kind import MOMENT_SETTINGS, PRODIGY_SETTINGS, OptimizerKind


class Adafactor(OptimizerKind):
    """Second moments of A and B as a row times a column a layer; steps at the rate given, not relative to a weight.

    Relative steps are the paper's default and would never start here: B is 0.
    """

    name = "adafactor"
    ignored = PRODIGY_SETTINGS | MOMENT_SETTINGS

    def build(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        from transformers.optimization import Adafactor as TransformersAdafactor

        pairs = zip(parameter_groups(adapter, config), adapter.buffers, strict=True)
        groups: list[dict[str, Any]] = [group | {"params": _matrices(buffer)} for group, buffer in pairs]
        return TransformersAdafactor(
            groups, lr=config.learning_rate, scale_parameter=False, relative_step=False, warmup_init=False
        )


def _matrices(buffer: FlatBuffer) -> list[nn.Parameter]:
    """Views (layers, rows, columns) of one buffer, with their gradients; magnitudes have nothing to factor."""
    if buffer.role == "magnitude":
        return [buffer.parameter]
    matrices = []
    for value, gradient in zip(buffer.data_views(), buffer.grad_views(), strict=True):
        matrix = nn.Parameter(value)
        matrix.grad = gradient
        matrices.append(matrix)
    return matrices


ADAFACTOR = Adafactor()
