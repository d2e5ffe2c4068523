"""Families whose parts are CLIP text encoders, a UNet and a KL autoencoder: what they have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dora_diffusion.models import targets
from dora_diffusion.models.tokenizer import clip_tokenizer
from dora_diffusion.models.words import tokenizer_of


class StableDiffusionFamily:
    """One text encoder, whose last hidden state conditions the UNet; nothing is told of sizes and crops.

    A family that differs overrides what differs. ``recognises``, ``recognises_checkpoint`` and ``configuration`` are
    left to each.
    """

    name: str
    pipeline = "StableDiffusionPipeline"
    parts: tuple[str, ...] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    # Parts that a folder may list and that neither training nor drawing needs.
    _left_out: Mapping[str, Any] = {
        "safety_checker": None,
        "requires_safety_checker": False,
        "feature_extractor": None,
        "image_encoder": None,
    }
    # Padding of each tokenizer, as the family was trained.
    _padding: Mapping[str, str] = {"tokenizer": "<|endoftext|>"}

    def load(
        self,
        source: str,
        *,
        revision: str | None,
        variant: str | None,
        dtype: torch.dtype,
        use_safetensors: bool | None,
    ) -> Any:
        pipe = self._pipeline_class().from_pretrained(
            source,
            revision=revision,
            variant=variant,
            dtype={"vae": torch.float32, "default": dtype},
            use_safetensors=use_safetensors,
            **self._left_out,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def load_checkpoint(self, file: Path, configuration: Path, *, dtype: torch.dtype) -> Any:
        from diffusers import AutoencoderKL

        offline = {"config": str(configuration), "local_files_only": True}
        # By itself, because diffusers reads a checkpoint in one precision only and the autoencoder stays float32.
        vae = AutoencoderKL.from_single_file(str(file), subfolder="vae", dtype=torch.float32, **offline)
        tokenizers = {part: clip_tokenizer(pad_token) for part, pad_token in self._padding.items()}
        pipe = self._pipeline_class().from_single_file(
            str(file), dtype=dtype, vae=vae, **tokenizers, **offline, **self._left_out
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _pipeline_class(self) -> Any:
        import diffusers

        return getattr(diffusers, self.pipeline)

    def adaptable(self, pipe: Any) -> Mapping[str, nn.Module]:
        return {"unet": pipe.unet, "text_encoder": pipe.text_encoder}

    def is_used(self, pipe: Any, component: str, path: str) -> bool:
        return True

    def layer_name(self, component: str, path: str) -> str:
        return targets.layer_name(component, path)

    def preset(self, component: str, name: str) -> str | None:
        return targets.preset(component, name)

    def encode_prompts(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        return {"encoder_hidden_states": pipe.text_encoder(token_ids(pipe, "text_encoder", prompts))[0]}

    def framing(self, framing: Tensor) -> dict[str, Tensor]:
        return {}

    def unet_arguments(self, conditioning: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Any]:
        return {name: value.to(dtype) for name, value in conditioning.items()}


def token_ids(pipe: Any, component: str, prompts: list[str]) -> Tensor:
    """Token numbers (b, length), padded and cut to the tokenizer's length, where the text encoder ``component`` is."""
    tokenizer = getattr(pipe, tokenizer_of(component))
    tokens = tokenizer(
        pipe.maybe_convert_prompt(prompts, tokenizer),  # a word of several tokens is written out
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return tokens.input_ids.to(getattr(pipe, component).device)


def reads_openclip(unet: Mapping[str, Any]) -> bool:
    """Whether a UNet's configuration is that of SD 2.x: OpenCLIP's 1024 features, linear projections at attention.

    Either says so: small models of the same layout keep the second and not the first.
    """
    return unet.get("cross_attention_dim") == 1024 or unet.get("use_linear_projection") is True
