"""Lion (arXiv:2302.06675), lion-pytorch's: the sign of a mean of gradients."""

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.training.optim import parameter_groups
from dora_diffusion.training.optimizers.kind import PRODIGY_SETTINGS, OptimizerKind


class Lion(OptimizerKind):
    """Every entry moves by the learning rate itself: no denominator, no epsilon, and a smaller rate than Adam's."""

    name = "lion"
    package = "lion_pytorch"
    ignored = PRODIGY_SETTINGS | {"adam_epsilon"}
    beta2 = 0.99

    def build(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        return self.imported().Lion(
            parameter_groups(adapter, config), lr=config.learning_rate, betas=self.betas(config)
        )


LION = Lion()
