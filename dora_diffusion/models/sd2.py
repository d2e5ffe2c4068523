"""Stable Diffusion 2.x: the parts of 1.x with OpenCLIP's text encoder; its 768-pixel checkpoints predict v."""

from collections.abc import Mapping
from typing import Any

from dora_diffusion.models.base import ReadConfig, Shapes
from dora_diffusion.models.pipelines import StableDiffusionFamily, reads_openclip


class StableDiffusion2(StableDiffusionFamily):
    """The family of Stable Diffusion 2.x.

    Its text encoder's configuration counts 23 layers: the 24th of OpenCLIP, which the family never used, is in neither
    folder nor memory, so that no layer is without effect.
    """

    name = "sd2"
    _padding = {"tokenizer": "!"}

    def recognises(self, index: Mapping[str, Any], config: ReadConfig) -> bool:
        return index.get("_class_name") == self.pipeline and reads_openclip(config("unet"))

    def recognises_checkpoint(self, shapes: Shapes) -> bool:
        return "cond_stage_model.model.token_embedding.weight" in shapes

    def configuration(self, prediction_type: str | None) -> str:
        """Both kinds of checkpoint have the same tensors, so what it predicts must be told; v where it is not.

        That is diffusers' choice too (``from_single_file`` takes stable-diffusion-2-1's configuration).
        """
        return "sd2-512" if prediction_type == "epsilon" else "sd2-768-v"


SD2 = StableDiffusion2()
