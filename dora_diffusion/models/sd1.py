"""Stable Diffusion 1.x, and toybox, which has its layout: a CLIP text encoder, a UNet, a KL autoencoder."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_ATTENTION = r"\.attn\d+\.(to_q|to_k|to_v|to_out\.0)$"
_FEED_FORWARD = r"\.ff\.net\.(0\.proj|2)$"
_OTHER = r"\.(proj_in|proj_out|conv1|conv2|conv_shortcut|time_emb_proj)$|samplers\.\d+\.conv$"
_TEXT_ATTENTION = r"\.self_attn\.(q_proj|k_proj|v_proj|out_proj)$"
_TEXT_MLP = r"\.mlp\.(fc1|fc2)$"

_PRESETS = {
    "unet": {
        "attn": _ATTENTION,
        "attn-mlp": f"{_ATTENTION}|{_FEED_FORWARD}",
        "full": f"{_ATTENTION}|{_FEED_FORWARD}|{_OTHER}",
    },
    "text_encoder": {
        "attn": _TEXT_ATTENTION,
        "attn-mlp": f"{_TEXT_ATTENTION}|{_TEXT_MLP}",
        "full": f"{_TEXT_ATTENTION}|{_TEXT_MLP}",
    },
}


class StableDiffusion1:
    """The family of Stable Diffusion 1.x."""

    name = "sd1"

    def recognises(self, index: Mapping[str, Any]) -> bool:
        return index.get("_class_name") == "StableDiffusionPipeline"

    def load(
        self,
        source: str,
        *,
        revision: str | None,
        variant: str | None,
        dtype: torch.dtype,
        use_safetensors: bool | None,
    ) -> Any:
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(
            source,
            revision=revision,
            variant=variant,
            dtype={"vae": torch.float32, "default": dtype},
            use_safetensors=use_safetensors,
            safety_checker=None,
            requires_safety_checker=False,
            feature_extractor=None,
            image_encoder=None,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def adaptable(self, pipe: Any) -> Mapping[str, nn.Module]:
        return {"unet": pipe.unet, "text_encoder": pipe.text_encoder}

    def layer_name(self, component: str, path: str) -> str:
        # transformers 5 dropped the level "text_model"; files keep it, because every reader knows it.
        if component.startswith("text_encoder") and not path.startswith("text_model."):
            path = f"text_model.{path}"
        return f"{component}.{path}"

    def preset(self, component: str, name: str) -> str | None:
        return _PRESETS[component].get(name)

    def encode_prompts(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        tokens = pipe.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=pipe.tokenizer.model_max_length,
            return_tensors="pt",
        )
        hidden = pipe.text_encoder(tokens.input_ids.to(pipe.text_encoder.device))[0]
        return {"encoder_hidden_states": hidden}

    def framing(self, framing: Tensor) -> dict[str, Tensor]:
        return {}

    def unet_arguments(self, conditioning: Mapping[str, Tensor]) -> dict[str, Any]:
        return dict(conditioning)


SD1 = StableDiffusion1()
