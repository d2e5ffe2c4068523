"""Small Stable Diffusion 1.x, 2.x and XL pipelines with random weights, made by plain diffusers."""

import shutil
from pathlib import Path
from typing import Any

import torch

from dora_diffusion.models import resolve
from dora_diffusion.models.single_file import CONFIGURATIONS
from dora_diffusion.models.tokenizer import clip_tokenizer

FAMILIES = ("sd1", "sd2", "sdxl")
FOLDERS = {"sd1": ["sd1"], "sd2": ["sd2-768-v", "sd2-512"], "sdxl": ["sdxl"]}  # of configurations, by family
PADDING = {"sd1": ["<|endoftext|>"], "sd2": ["!"], "sdxl": ["<|endoftext|>", "!"]}


def small_pipeline(family: str, seed: int = 0, clip_words: bool = False) -> Any:
    """The pipeline of ``family`` as its originals are laid out, float32; its pictures have 64 pixels a side.

    Args:
        clip_words: CLIP's 49408 tokens; otherwise toybox's few, which load much faster.
    """
    from transformers import CLIPTokenizer

    torch.manual_seed(seed)
    if clip_words:
        tokenizers = [clip_tokenizer(pad_token) for pad_token in PADDING[family]]
    else:
        tokenizers = [CLIPTokenizer.from_pretrained(resolve("toybox"), subfolder="tokenizer") for _ in PADDING[family]]
    return {"sd1": _sd1, "sd2": _sd2, "sdxl": _sdxl}[family](*tokenizers)


def _sd1(tokenizer: Any) -> Any:
    unet = {"cross_attention_dim": 16, "attention_head_dim": 4}
    return _plain(_text_encoder(tokenizer, 16, 2, "quick_gelu"), tokenizer, unet, "epsilon")


def _sd2(tokenizer: Any) -> Any:
    unet = {"cross_attention_dim": 24, "attention_head_dim": [2, 4], "use_linear_projection": True}
    return _plain(_text_encoder(tokenizer, 24, 2, "gelu"), tokenizer, unet, "v_prediction")


def _plain(text_encoder: Any, tokenizer: Any, unet: dict[str, Any], prediction_type: str) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=_unet(**unet),
        scheduler=_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(tokenizer: Any, tokenizer_2: Any) -> Any:
    from diffusers import StableDiffusionXLPipeline

    unet = _unet(
        cross_attention_dim=16 + 24,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        transformer_layers_per_block=[1, 2],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 20,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(tokenizer, 16, 3, "quick_gelu"),
        text_encoder_2=_text_encoder(tokenizer_2, 24, 2, "gelu", projection=20),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=_scheduler("epsilon"),
        add_watermarker=False,
    )


def _unet(**layout: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        **layout,
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )


def _text_encoder(tokenizer: Any, width: int, layers: int, hidden_act: str, projection: int | None = None) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_act=hidden_act,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _scheduler(prediction_type: str) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=prediction_type,
    )


def weights_of(pipe: Any) -> dict[str, torch.Tensor]:
    """Every tensor of the pipeline's models, by part and name."""
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{part}.{name}": tensor for part, model in parts.items() for name, tensor in model.state_dict().items()}


def small_configurations(pipes: dict[str, Any], root: Path) -> Path:
    """The package's folder of configurations, copied to ``root``, its models' sizes replaced by those of ``pipes``."""
    shutil.copytree(CONFIGURATIONS, root)
    for family, pipe in pipes.items():
        for folder in FOLDERS[family]:
            for part, model in pipe.components.items():
                if isinstance(model, torch.nn.Module):
                    config = model.config
                    save = config.save_pretrained if hasattr(config, "save_pretrained") else model.save_config
                    save(root / folder / part)
    return root
