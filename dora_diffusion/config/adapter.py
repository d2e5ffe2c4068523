"""What is trained, and where."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from dora_diffusion.config.fields import Settings, identity
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import ADAPTERS


def _pattern(entries: list[str]) -> list[str]:
    for entry in entries:
        pattern, _, number = entry.rpartition("=")
        if not (pattern and re.fullmatch(r"[0-9]+(\.[0-9]+)?", number) and float(number) > 0):
            raise ConfigError(f"A pattern is written 'regex=number' ('attn2=32'), the number above 0, got {entry!r}.")
    return entries


AdapterName = Annotated[str, AfterValidator(ADAPTERS.check)]
Patterns = Annotated[list[str], AfterValidator(_pattern)]


class AdapterConfig(Settings):
    """What is trained, and where."""

    kind: AdapterName = identity("dora", f"adapter kind: {', '.join(ADAPTERS)}")
    rank: int = identity(16, "rank of the low-rank update; clamped on layers that are smaller", ge=1, le=1024)
    alpha: float | None = identity(None, "the update is scaled by alpha / rank; left out, alpha is the rank", gt=0)
    targets: str = identity("attn", "UNet layers: a preset (attn, attn-mlp, full) or a regex over layer names")
    train_text_encoder: bool = identity(False, "train adapters in the text encoder too")
    text_encoder_targets: str = identity("attn", "text encoder layers: a preset (attn, attn-mlp, full) or a regex")
    rank_pattern: Patterns = identity([], "ranks of particular layers, each 'regex=rank'; the first that matches wins")
    alpha_pattern: Patterns = identity(
        [], "alphas of particular layers, each 'regex=alpha'; the first that matches wins"
    )
    new_tokens: int = identity(
        0,
        "new tokens that the trigger stands for, learnt beside the adapter (pivotal tuning); 0: the base's own",
        ge=0,
        le=16,
    )
    new_tokens_init: str | None = identity(
        None, "words that the new tokens start from; left out, the class noun, without one the trigger"
    )
    norm_grad: Literal["detach", "full"] = identity(
        "detach", "whether the gradient flows through DoRA's norm (full) or not (detach, as in the paper's section 4.3)"
    )

    def trains_text(self) -> bool:
        """Whether what the text encoders say of a prompt changes in the run."""
        return self.train_text_encoder or self.new_tokens > 0
