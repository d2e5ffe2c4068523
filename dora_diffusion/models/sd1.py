"""Stable Diffusion 1.x, and toybox, which has its layout: CLIP's text encoder, a UNet, a KL autoencoder."""

from collections.abc import Mapping
from typing import Any

from dora_diffusion.models.base import ReadConfig, Shapes
from dora_diffusion.models.pipelines import StableDiffusionFamily, reads_openclip


class StableDiffusion1(StableDiffusionFamily):
    """The family of Stable Diffusion 1.x."""

    name = "sd1"

    def recognises(self, index: Mapping[str, Any], config: ReadConfig) -> bool:
        return index.get("_class_name") == self.pipeline and not reads_openclip(config("unet"))

    def recognises_checkpoint(self, shapes: Shapes) -> bool:
        return "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight" in shapes

    def configuration(self, prediction_type: str | None) -> str:
        return "sd1"


SD1 = StableDiffusion1()
