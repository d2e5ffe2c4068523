"""Schedule-free AdamW (arXiv:2405.15682), its authors' schedulefree: an average takes the schedule's place."""

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.training.optim import parameter_groups
from dora_diffusion.training.optimizers.kind import PRODIGY_SETTINGS, OptimizerKind


class AdamWScheduleFree(OptimizerKind):
    """Trains at one point and publishes another, the average: ``published.py`` shows it to previews and files."""

    name = "adamw_schedule_free"
    package = "schedulefree"
    ignored = PRODIGY_SETTINGS | {"ema_decay"}

    def check(self, config: OptimConfig, device: torch.device) -> None:
        """Raises: ConfigError, MachineError: as every optimizer; or a schedule besides a warm-up is given."""
        super().check(config, device)
        if not config.lr_scheduler.startswith("constant"):
            raise ConfigError(
                f"optimizer {self.name} takes the place of a schedule, got lr_scheduler {config.lr_scheduler}. "
                "Use constant, or constant_with_warmup."
            )
        if config.adam_beta1 == 0:
            raise ConfigError(f"optimizer {self.name} needs adam_beta1 above 0, got 0. Leave adam_beta1 out.")

    def build(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        optimizer = self.imported().AdamWScheduleFree(
            parameter_groups(adapter, config),
            lr=config.learning_rate,
            betas=self.betas(config),
            eps=config.adam_epsilon,
        )
        optimizer.train()
        return optimizer


ADAMW_SCHEDULE_FREE = AdamWScheduleFree()
