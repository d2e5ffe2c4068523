"""Which photos, what they are called, and how they are looked at."""

from pathlib import Path

from pydantic import model_validator

from dora_diffusion.config.fields import Settings, free, identity
from dora_diffusion.errors import ConfigError


class DataConfig(Settings):
    """The photos of the subject."""

    instance_data_dir: Path | None = identity(None, "folder with the photos of the subject (three to twenty)")
    instance_prompt: str | None = identity(
        None,
        "prompt that names the subject, e.g. 'a photo of sks dog'; left out, it is made from trigger and class noun",
    )
    trigger: str = identity("sks", "rare word that will stand for the subject", min_length=1)
    class_noun: str | None = identity(None, "what the subject is, in one or two words: dog, teapot, backpack")
    resolution: int | None = identity(
        None,
        "side of the square training picture in pixels, a multiple of 8; left out, the model's own",
        ge=32,
        le=4096,
    )
    center_crop: bool = identity(False, "always crop the centre; left out, a fresh random crop is drawn each step")
    random_flip: bool = identity(False, "mirror half of the pictures, drawn afresh each step")
    cache_latents: bool = free(True, "encode a photo once when neither its crop nor anything else about it changes")

    @model_validator(mode="after")
    def _resolution_fits_the_latents(self) -> "DataConfig":
        if self.resolution is not None and self.resolution % 8:
            raise ConfigError(f"resolution must be a multiple of 8, got {self.resolution}.")
        return self

    def prompt(self) -> str:
        """The instance prompt, written out.

        Raises:
            ConfigError: neither an instance prompt nor a class noun was given.
        """
        if self.instance_prompt:
            return self.instance_prompt
        if not self.class_noun:
            raise ConfigError(
                "What is the subject? Give --class_noun (for example: --class_noun dog) or --instance_prompt "
                "'a photo of sks dog'."
            )
        return f"a photo of {self.trigger} {self.class_noun}"
