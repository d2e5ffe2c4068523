"""AdamW (arXiv:1711.05101), torch's."""

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.training.optim import parameter_groups
from dora_diffusion.training.optimizers.kind import OptimizerKind


class AdamW(OptimizerKind):
    """Fused on a GPU: one kernel a buffer."""

    name = "adamw"

    def build(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameter_groups(adapter, config),
            lr=config.learning_rate,  # the polynomial schedule ends at a fraction of it
            betas=self.betas(config),
            eps=config.adam_epsilon,
            fused=adapter.buffers[0].parameter.is_cuda,
        )


ADAMW = AdamW()
