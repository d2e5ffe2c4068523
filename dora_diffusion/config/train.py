"""Every setting of a training run. Flag names are those of diffusers' DreamBooth scripts wherever one exists there."""

from typing import Any

from pydantic import model_validator

from dora_diffusion.config.adapter import AdapterConfig
from dora_diffusion.config.data import DataConfig
from dora_diffusion.config.fields import Settings, free
from dora_diffusion.config.loss import LossConfig
from dora_diffusion.config.model import ModelConfig
from dora_diffusion.config.optim import OptimConfig
from dora_diffusion.config.presets import known_presets, over_preset
from dora_diffusion.config.prior import PriorConfig
from dora_diffusion.config.run import RunConfig
from dora_diffusion.errors import ConfigError


class TrainConfig(Settings):
    """Everything a training run is made from. Defaults, under the preset if one is named, under what is given."""

    preset: str | None = free(None, f"settings that lie under your own: {known_presets()}")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    adapter: AdapterConfig = AdapterConfig()
    prior: PriorConfig = PriorConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _lie_over_the_preset(cls, given: Any) -> Any:
        return over_preset(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _a_new_word_is_one_word(self) -> "TrainConfig":
        trigger = self.data.trigger
        if self.adapter.new_tokens and (not trigger.strip("<>") or len(trigger.split()) != 1):
            raise ConfigError(
                f"new_tokens makes a word of the trigger, which must be one without spaces, got {trigger!r}."
            )
        return self

    def class_prompt(self) -> str:
        """The prior term's prompt, written out.

        Raises:
            ConfigError: prior preservation is on, and neither a class prompt nor a class noun was given.
        """
        if self.prior.class_prompt:
            return self.data.fill(self.prior.class_prompt)
        if not self.data.class_noun:
            raise ConfigError(
                "Prior preservation needs --class_noun (for example: dog) or --class_prompt 'a photo of a dog'."
            )
        return f"a photo of a {self.data.class_noun}"
