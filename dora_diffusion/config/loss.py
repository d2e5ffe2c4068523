"""What is minimised: the error, what a timestep counts, and how noise and timesteps are drawn."""

from typing import Literal

from pydantic import model_validator

from dora_diffusion.config.fields import Settings, identity
from dora_diffusion.errors import ConfigError

LossType = Literal["l2", "huber", "smooth_l1"]
HuberSchedule = Literal["snr", "exponential", "constant"]
LossWeighting = Literal["uniform", "min_snr", "debiased"]


class LossConfig(Settings):
    """The loss: how errors and timesteps count, and which noise and timesteps are drawn."""

    loss_type: LossType = identity("l2", "error of one number: l2 squares it; huber and smooth_l1 mind large ones less")
    huber_c: float = identity(0.1, "error from which huber and smooth_l1 turn from squares to amounts", gt=0, le=1)
    huber_schedule: HuberSchedule = identity(
        "snr", "how that error falls from 1 to huber_c as noise grows: by signal-to-noise ratio, by timestep, or not"
    )
    loss_weighting: LossWeighting | None = identity(
        None, "what a timestep counts: all the same, min_snr, or debiased; left out, min_snr where snr_gamma is given"
    )
    snr_gamma: float | None = identity(
        None, "min-SNR's limit: timesteps with a higher signal-to-noise ratio count less; 5 is usual", gt=0
    )
    noise_offset: float = identity(
        0.0,
        "share of noise that is the same all over a channel: brighter and darker pictures; 0.05 is usual",
        ge=0,
        le=1,
    )
    min_timestep: int = identity(0, "lowest timestep that is drawn", ge=0)
    max_timestep: int | None = identity(
        None, "timesteps are drawn below this one; left out, all that the model's schedule has", ge=1
    )
    timestep_sampling: Literal["uniform", "stratified"] = identity(
        "uniform", "draw each timestep by itself, or spread those of one optimizer step evenly over the range"
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "LossConfig":
        default = type(self).model_fields
        if self.loss_type == "l2":
            for name in ("huber_c", "huber_schedule"):
                if getattr(self, name) != default[name].default:
                    raise ConfigError(
                        f"{name} means nothing to loss_type l2, got {getattr(self, name)}. Use --loss_type huber or "
                        "smooth_l1, or leave it out."
                    )
        if self.snr_gamma is not None and self.weighting() != "min_snr":
            raise ConfigError(
                f"snr_gamma belongs to loss_weighting min_snr, got {self.snr_gamma:g} and {self.loss_weighting}. "
                "Leave one of them out."
            )
        return self

    @model_validator(mode="after")
    def _range_holds_a_timestep(self) -> "LossConfig":
        if self.max_timestep is not None and self.min_timestep >= self.max_timestep:
            raise ConfigError(
                f"min_timestep must be below max_timestep, which is not drawn itself; got {self.min_timestep} and "
                f"{self.max_timestep}."
            )
        return self

    def weighting(self) -> LossWeighting:
        """What a timestep counts, written out."""
        if self.loss_weighting is not None:
            return self.loss_weighting
        return "uniform" if self.snr_gamma is None else "min_snr"

    def gamma(self) -> float:
        """min-SNR's limit: the one given, or 5, as arXiv:2303.09556 found best."""
        return 5.0 if self.snr_gamma is None else self.snr_gamma
