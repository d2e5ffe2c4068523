"""Stable Diffusion XL, the base: two text encoders, and a UNet that is told of sizes and crops (arXiv:2307.01952)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dora_diffusion.models.base import ReadConfig, Shapes
from dora_diffusion.models.pipelines import StableDiffusionFamily, token_ids


class StableDiffusionXL(StableDiffusionFamily):
    """The family of Stable Diffusion XL."""

    name = "sdxl"
    pipeline = "StableDiffusionXLPipeline"
    parts = (*StableDiffusionFamily.parts, "text_encoder_2", "tokenizer_2")
    # The watermarker would draw over the pictures, and is a package of its own.
    _left_out = {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}
    _padding = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}

    def recognises(self, index: Mapping[str, Any], config: ReadConfig) -> bool:
        return index.get("_class_name") == self.pipeline

    def recognises_checkpoint(self, shapes: Shapes) -> bool:
        return "conditioner.embedders.1.model.positional_embedding" in shapes

    def configuration(self, prediction_type: str | None) -> str:
        return "sdxl"

    def adaptable(self, pipe: Any) -> Mapping[str, nn.Module]:
        return {**super().adaptable(pipe), "text_encoder_2": pipe.text_encoder_2}

    def is_used(self, pipe: Any, component: str, path: str) -> bool:
        """All but the last layer of the first text encoder, and what follows it: the UNet reads the layer before.

        The second one is read there too, but its pooled output comes from the end.
        """
        if component != "text_encoder":
            return True
        last = f"encoder.layers.{pipe.text_encoder.config.num_hidden_layers - 1}."
        return not path.removeprefix("text_model.").startswith((last, "final_layer_norm"))

    def encode_prompts(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        """``encoder_hidden_states`` (b, tokens, dim + dim_2): both encoders' penultimate hidden states side by side;
        ``text_embeds`` (b, dim_2): the second one's pooled projection.
        """
        first, second = (
            getattr(pipe, component)(token_ids(pipe, component, prompts), output_hidden_states=True)
            for component in ("text_encoder", "text_encoder_2")
        )
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return {"encoder_hidden_states": hidden, "text_embeds": second.text_embeds}

    def framing(self, framing: Tensor) -> dict[str, Tensor]:
        """``time_ids`` (b, 6): original size, crop's corner and target size, each vertical first.

        The order of ``compute_time_ids`` in diffusers' ``train_dreambooth_lora_sdxl.py``, which is that of framing.
        """
        return {"time_ids": framing}

    def unet_arguments(self, conditioning: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Any]:
        """``time_ids`` stay float32: bfloat16 has no 1365 (it has 1368), and the UNet turns them into sines in float32
        before it casts. diffusers' script rounds them to the precision of the weights.
        """
        return {
            "encoder_hidden_states": conditioning["encoder_hidden_states"].to(dtype),
            "added_cond_kwargs": {
                "text_embeds": conditioning["text_embeds"].to(dtype),
                "time_ids": conditioning["time_ids"].float(),
            },
        }


SDXL = StableDiffusionXL()
