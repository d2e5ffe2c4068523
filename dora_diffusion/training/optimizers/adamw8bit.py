"""AdamW with its moments in 8 bits, block by block (arXiv:2110.02861), bitsandbytes'."""

import logging
from types import ModuleType

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.errors import MachineError
from dora_diffusion.training.optim import parameter_groups
from dora_diffusion.training.optimizers.kind import OptimizerKind

BLOCK = 4096  # smaller parameters keep their moments in 32 bits


class AdamW8bit(OptimizerKind):
    """A quarter of AdamW's state. Parameters and gradients stay float32."""

    name = "adamw8bit"
    package = "bitsandbytes"

    def check(self, config: OptimConfig, device: torch.device) -> None:
        """Raises: ConfigError, MachineError: as every optimizer; or this build of the package lacks ``device``."""
        super().check(config, device)
        sample = torch.nn.Parameter(torch.zeros(BLOCK, device=device))
        sample.grad = torch.zeros_like(sample)
        try:  # only trying tells: which devices a build serves is found out at its first step
            self.imported().optim.AdamW8bit([sample]).step()
        except Exception as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise MachineError(
                f"bitsandbytes cannot step on this {device.type} ({why}). Update it: pip install -U bitsandbytes; "
                "or use --optimizer adamw, whose state is small for an adapter."
            ) from None

    def imported(self) -> ModuleType:
        # As it is imported on a CPU it warns of a kernel for 4-bit weights, which is none of ours.
        logging.getLogger(f"{self.package}.backends.cpu.ops").setLevel(logging.ERROR)
        return super().imported()

    def build(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        return self.imported().optim.AdamW8bit(
            parameter_groups(adapter, config),
            lr=config.learning_rate,
            betas=self.betas(config),
            eps=config.adam_epsilon,
            min_8bit_size=BLOCK,
        )


ADAMW8BIT = AdamW8bit()
