"""Optimizers over an adapter's flat buffers."""

from typing import Any

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig


def parameter_groups(adapter: Adapter, config: OptimConfig) -> list[dict[str, Any]]:
    """One group a buffer: text encoders at their own rate; magnitudes are never decayed (decay pulls to 0, not to the
    base's norm).
    """
    return [
        {
            "params": [buffer.parameter],
            "lr": config.text_encoder_rate() if buffer.component.startswith("text_encoder") else config.learning_rate,
            "weight_decay": 0.0 if buffer.role == "magnitude" else config.adam_weight_decay,
        }
        for buffer in adapter.buffers
    ]


def adamw(adapter: Adapter, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101), fused on a GPU."""
    return torch.optim.AdamW(
        parameter_groups(adapter, config),
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=adapter.buffers[0].parameter.is_cuda,
    )


def learning_rate_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, max_train_steps: int) -> Any:
    """diffusers' schedules, stepped once an optimizer step."""
    from diffusers.optimization import get_scheduler

    return get_scheduler(
        config.lr_scheduler, optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=max_train_steps
    )
