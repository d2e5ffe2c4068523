"""Prodigy (arXiv:2306.06101), its authors' prodigyopt: Adam that finds its own step size."""

from collections.abc import Iterator

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.training.optim import parameter_groups
from dora_diffusion.training.optimizers.kind import OptimizerKind


class Prodigy(OptimizerKind):
    """One step size for everything, so one rate: ``learning_rate`` scales the estimate."""

    name = "prodigy"
    package = "prodigyopt"
    ignored = frozenset({"lora_plus_ratio", "magnitude_lr", "new_tokens_lr"})

    def check(self, config: OptimConfig, device: torch.device) -> None:
        """Raises: ConfigError, MachineError: as every optimizer; or the text encoder has a rate of its own."""
        super().check(config, device)
        if config.text_encoder_lr not in (None, config.learning_rate):
            raise ConfigError(
                f"optimizer prodigy has one rate for everything, got learning_rate {config.learning_rate:g} and "
                f"text_encoder_lr {config.text_encoder_lr:g}. Leave text_encoder_lr out."
            )

    def notes(self, config: OptimConfig) -> Iterator[str]:
        if not 0.1 < config.learning_rate <= 2:
            yield (
                f"prodigy finds its step size by itself and learning_rate, here {config.learning_rate:g}, scales it: "
                "--learning_rate 1 is meant to be used with it."
            )

    def build(self, adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
        groups = [group | {"lr": config.learning_rate} for group in parameter_groups(adapter, config)]
        return self.imported().Prodigy(
            groups,
            lr=config.learning_rate,
            betas=self.betas(config),
            beta3=config.prodigy_beta3,
            eps=config.adam_epsilon,
            decouple=config.prodigy_decouple,
            use_bias_correction=config.prodigy_use_bias_correction,
            safeguard_warmup=config.prodigy_safeguard_warmup,
        )


PRODIGY = Prodigy()
