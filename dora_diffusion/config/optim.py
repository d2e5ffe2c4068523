"""The optimizer, its rates and its schedule, and what is averaged."""

from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from dora_diffusion.config.fields import Settings, identity
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import OPTIMIZERS


def _optimizer(name: str) -> str:
    return OPTIMIZERS.check(name.lower())  # diffusers' scripts write AdamW


OptimizerName = Annotated[str, AfterValidator(_optimizer)]


class OptimConfig(Settings):
    """The optimizer, its rates and its schedule, and what is averaged."""

    optimizer: OptimizerName = identity("adamw", f"optimizer: {', '.join(OPTIMIZERS)}")
    learning_rate: float = identity(1e-4, "learning rate of the UNet's adapters; prodigy wants 1", gt=0)
    text_encoder_lr: float | None = identity(
        None,
        "learning rate of the text encoder's adapters; left out, a fifth of the UNet's, for prodigy the same",
        gt=0,
    )
    lora_plus_ratio: float = identity(
        1.0, "B learns at this many times A's rate (LoRA+ suggests 16 and a smaller learning_rate)", gt=0
    )
    magnitude_lr: float | None = identity(
        None, "learning rate of DoRA's magnitudes; left out, that of the component they belong to", gt=0
    )
    new_tokens_lr: float | None = identity(
        None, "learning rate of new tokens; left out, 10 times the UNet's, for prodigy the same", gt=0
    )
    train_text_encoder_frac: float = identity(
        1.0,
        "fraction of max_train_steps after which the text encoder's adapters and new tokens stay as they are",
        ge=0,
        le=1,
    )
    adam_beta1: float = identity(0.9, "decay of the mean of gradients", ge=0, lt=1)
    adam_beta2: float | None = identity(
        None, "decay of the mean of squared gradients; left out, 0.999, for lion 0.99", ge=0, lt=1
    )
    adam_epsilon: float = identity(1e-8, "added to the denominator of Adam's step", gt=0)
    adam_weight_decay: float = identity(1e-2, "weight decay of A and B; magnitudes are never decayed", ge=0)
    adam_weight_decay_text_encoder: float | None = identity(
        None, "weight decay in the text encoder; left out, adam_weight_decay", ge=0
    )
    prodigy_beta3: float | None = identity(
        None, "decay of prodigy's step size estimate; left out, the square root of adam_beta2", ge=0, lt=1
    )
    prodigy_decouple: bool = identity(True, "prodigy decays weights as AdamW does, not through the gradient")
    prodigy_use_bias_correction: bool = identity(True, "prodigy uses Adam's bias correction")
    prodigy_safeguard_warmup: bool = identity(True, "a warm-up does not enter prodigy's step size estimate")
    max_grad_norm: float = identity(1.0, "gradients are clipped to this norm; 0 switches clipping off", ge=0)
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = identity("constant", "shape of the learning rate over the run")
    lr_warmup_steps: int = identity(0, "steps in which the learning rate grows from 0", ge=0)
    lr_num_cycles: int = identity(1, "how often cosine_with_restarts starts from the full rate", ge=1)
    lr_power: float = identity(1.0, "power of the polynomial schedule", gt=0)
    ema_decay: float = identity(
        0.0,
        "decay of the moving average that previews and the adapter file show; 0 shows the weights trained",
        ge=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _the_schedule_heeds_its_settings(self) -> "OptimConfig":
        if self.lr_warmup_steps and self.lr_scheduler == "constant":
            raise ConfigError(
                f"lr_scheduler constant has no warm-up, got lr_warmup_steps {self.lr_warmup_steps}. "
                "Use constant_with_warmup, or leave lr_warmup_steps out."
            )
        for name, shape in (("lr_num_cycles", "cosine_with_restarts"), ("lr_power", "polynomial")):
            if getattr(self, name) != 1 and self.lr_scheduler != shape:
                raise ConfigError(
                    f"lr_scheduler {self.lr_scheduler} has no {name}, got {getattr(self, name):g}. "
                    f"Use {shape}, or leave {name} out."
                )
        if self.lr_scheduler == "polynomial" and self.learning_rate <= 1e-7:
            raise ConfigError(f"lr_scheduler polynomial ends at 1e-7, got learning_rate {self.learning_rate:g}.")
        return self

    def text_encoder_rate(self) -> float:
        """The text encoder's learning rate: the one given, or a fifth of the UNet's."""
        return self.text_encoder_lr if self.text_encoder_lr is not None else self.learning_rate / 5

    def new_tokens_rate(self) -> float:
        """The learning rate of new tokens: the one given, or ten times the UNet's."""
        return self.new_tokens_lr if self.new_tokens_lr is not None else 10 * self.learning_rate

    def text_encoder_decay(self) -> float:
        """The text encoder's weight decay: the one given, or the UNet's."""
        given = self.adam_weight_decay_text_encoder
        return self.adam_weight_decay if given is None else given

    def text_encoder_steps(self, max_train_steps: int) -> int:
        """How many of a run's steps train the text encoder's adapters."""
        return round(self.train_text_encoder_frac * max_train_steps)
