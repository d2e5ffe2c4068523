"""How many ranks a low-rank approximation is given: what every tool that makes one asks."""

from pydantic import model_validator

from dora_diffusion.config.fields import Settings, free
from dora_diffusion.errors import ConfigError

# Of a plain LoRA: twice the rank that is trained by default. In scripts/bench_lowrank.py (two toybox subjects, DoRAs of
# rank 16) likeness was within 0.001 of the DoRA's at 32 and within 0.01 at 8 and 16; at 32 15 % of the change is lost.
DEFAULT_RANK = 32


class Ranks(Settings):
    """How many ranks a layer is given: by count, by what is kept or by what is lost."""

    rank: int | None = free(
        None, "rank of every layer; with energy or error, the largest; left out, 32 (128 with those)", ge=1, le=4096
    )
    energy: float | None = free(None, "the smallest rank that keeps this share of the squared change", gt=0, le=1)
    error: float | None = free(None, "the smallest rank that loses at most this share of the change", ge=0, lt=1)

    @model_validator(mode="after")
    def _one_rule(self) -> "Ranks":
        if self.energy is not None and self.error is not None:
            raise ConfigError("energy and error say the same in two ways (error^2 = 1 - energy): give one of them.")
        return self

    def any_given(self) -> bool:
        """Whether one of the three was set."""
        return self.rank is not None or self.energy is not None or self.error is not None
