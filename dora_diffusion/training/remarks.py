"""Settings that are allowed, and probably not meant: said once, before the first step."""

import re
from collections.abc import Iterator

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.presets import family_of
from dora_diffusion.models import BaseModel
from dora_diffusion.training.preview import validation_prompts


def remarks(config: TrainConfig, base: BaseModel) -> Iterator[str]:
    """What the user should read about the settings, in sentences."""
    trigger, run = config.data.trigger, config.run
    for prompt in validation_prompts(config):
        if _has(trigger, config.data.prompt()) and not _has(trigger, prompt):
            yield f"The validation prompt {prompt!r} has no {trigger!r}: its previews show what the base makes of it."
    family = family_of(config.preset) if config.preset else None
    if family and family != base.family.name:
        yield f"The preset {config.preset} is for bases of the family {family}; {base.name} is {base.family.name}."
    wanted, native = config.data.resolution or base.native_resolution, base.native_resolution
    if not native / 2 <= wanted <= native * 2:
        yield f"The resolution {wanted} is far from the {native} pixels that {base.name} was trained on."
    if run.hub_model_id and not run.push_to_hub:
        yield "hub_model_id has no effect without --push_to_hub: nothing is uploaded."


def _has(word: str, prompt: str) -> bool:
    """Whether ``word`` is in the prompt as a word; case does not count, as it does not to the tokenizer."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None
