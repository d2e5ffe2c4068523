"""Prior preservation."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from dora_diffusion.config.fields import Settings, free, identity
from dora_diffusion.errors import ConfigError


class PriorConfig(Settings):
    """Prior preservation keeps the class from turning into the subject: by pictures of it, or by the base's answers."""

    with_prior_preservation: bool = identity(False, "add the prior-preservation term")
    prior_kind: Literal["images", "prediction"] = identity(
        "images",
        "what the class is held to: images of it that the base made, or what the base predicts for the class prompt on "
        "the photos themselves (no pictures needed)",
    )
    class_prompt: str | None = identity(
        None, "prompt of the class in the prior term; left out, 'a photo of a <class noun>'"
    )
    class_data_dir: Path | None = free(None, "folder with class images of your own; missing ones are made by the base")
    num_class_images: int = identity(100, "how many class images to use", ge=1)
    prior_loss_weight: float = identity(1.0, "weight of the prior term", ge=0)
    sample_batch_size: int = free(4, "class images made at once", ge=1)
    class_images_steps: int = identity(25, "sampling steps of a class image", ge=1)
    class_images_guidance: float = identity(5.0, "guidance scale of a class image", ge=0)
    class_images_seed: int = identity(0, "seed of the first class image; each next one adds 1", ge=0)

    @model_validator(mode="after")
    def _prediction_has_no_pictures(self) -> "PriorConfig":
        if self.prior_kind == "prediction" and not self.with_prior_preservation:
            raise ConfigError(
                "prior_kind prediction is a kind of prior preservation, which is off. Add --with_prior_preservation, "
                "or leave prior_kind out."
            )
        if self.prior_kind == "prediction" and self.class_data_dir is not None:
            raise ConfigError(
                f"prior_kind prediction needs no class images, got class_data_dir {self.class_data_dir}. Leave "
                "class_data_dir out, or use --prior_kind images."
            )
        return self

    def uses_images(self) -> bool:
        """Whether the run needs class images."""
        return self.with_prior_preservation and self.prior_kind == "images"

    def uses_prediction(self) -> bool:
        """Whether the frozen base's own prediction is the prior term's target."""
        return self.with_prior_preservation and self.prior_kind == "prediction"
