"""The optimizer and its schedule."""

from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from dora_diffusion.config.fields import Settings, identity
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import OPTIMIZERS


def _optimizer(name: str) -> str:
    return OPTIMIZERS.check(name.lower())  # diffusers' scripts write AdamW


OptimizerName = Annotated[str, AfterValidator(_optimizer)]


class OptimConfig(Settings):
    """The optimizer and its schedule."""

    optimizer: OptimizerName = identity("adamw", f"optimizer: {', '.join(OPTIMIZERS)}")
    learning_rate: float = identity(1e-4, "learning rate of the UNet's adapters", gt=0)
    text_encoder_lr: float | None = identity(
        None, "learning rate of the text encoder's adapters; left out, a fifth of the UNet's", gt=0
    )
    adam_beta1: float = identity(0.9, "AdamW's first decay", ge=0, lt=1)
    adam_beta2: float = identity(0.999, "AdamW's second decay", ge=0, lt=1)
    adam_epsilon: float = identity(1e-8, "AdamW's epsilon", gt=0)
    adam_weight_decay: float = identity(1e-2, "weight decay of A and B; magnitudes are never decayed", ge=0)
    max_grad_norm: float = identity(1.0, "gradients are clipped to this norm; 0 switches clipping off", ge=0)
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = identity("constant", "shape of the learning rate over the run")
    lr_warmup_steps: int = identity(0, "steps in which the learning rate grows from 0", ge=0)

    @model_validator(mode="after")
    def _constant_has_no_warmup(self) -> "OptimConfig":
        if self.lr_warmup_steps and self.lr_scheduler == "constant":
            raise ConfigError(
                f"lr_scheduler constant has no warm-up, got lr_warmup_steps {self.lr_warmup_steps}. "
                "Use constant_with_warmup, or leave lr_warmup_steps out."
            )
        return self

    def text_encoder_rate(self) -> float:
        """The text encoder's learning rate: the one given, or a fifth of the UNet's."""
        return self.text_encoder_lr if self.text_encoder_lr is not None else self.learning_rate / 5
