"""Models that people try and that cannot be trained here: each by name, with the reason and what to do."""

from collections.abc import Mapping
from typing import Any

from dora_diffusion.errors import ModelError
from dora_diffusion.models.base import Shapes
from dora_diffusion.registry import FAMILIES

_REFINER = (
    "is SDXL's refiner: it has one text encoder of two, is conditioned on an aesthetic score, and only finishes "
    "pictures that the base has begun, so a subject cannot be taught to it. Train the base "
    "(stabilityai/stable-diffusion-xl-base-1.0); the refiner works on its pictures as it is."
)
_INPAINTING = (
    "is an inpainting model: its UNet takes a mask and a masked picture besides the latents, which training here does "
    "not give it. Train the text-to-image model it was made from."
)
_EDM = (
    "is trained in the EDM formulation (Playground v2.5), another loss and noise schedule than those known here. "
    "Use SDXL or a fine-tune of it."
)
_PIPELINES = {
    "StableDiffusionXLImg2ImgPipeline": _REFINER,
    "StableDiffusionInpaintPipeline": _INPAINTING,
    "StableDiffusionXLInpaintPipeline": _INPAINTING,
    "StableDiffusion3Pipeline": "is Stable Diffusion 3, a transformer with another loss and a third text encoder.",
    "FluxPipeline": "is FLUX, a transformer with another loss.",
    "IFPipeline": "is DeepFloyd IF, which draws pixels without an autoencoder.",
}
# A piece of a tensor's name that only such files have.
_PIECES = {
    "lora_": "is an adapter, not a base model. Give the model it was trained on.",
    "conditioner.embedders.0.model.text_projection": _REFINER,
    "edm_mean": _EDM,
    "joint_blocks.0.": _PIPELINES["StableDiffusion3Pipeline"],
    "double_blocks.0.": _PIPELINES["FluxPipeline"],
    "control_model.": "is a ControlNet, not a base model.",
    "down_blocks.0.resnets.0.": "is one part of a model in diffusers' layout. Give the folder with model_index.json.",
}


def supported() -> str:
    """The families, for the end of a message."""
    return f"Supported families: {', '.join(FAMILIES)}."


def refuse_index(index: Mapping[str, Any], name: str) -> None:
    """Raises: ModelError: ``model_index.json`` is that of a model which cannot be trained here."""
    kind = str(index.get("_class_name", ""))
    scheduler = index.get("scheduler")
    if kind in _PIPELINES:
        raise ModelError(f"{name} {_PIPELINES[kind]} {supported()}")
    if index.get("requires_aesthetics_score") is True:
        raise ModelError(f"{name} {_REFINER} {supported()}")
    if isinstance(scheduler, list) and str(scheduler[-1:]).startswith("['EDM"):
        raise ModelError(f"{name} {_EDM} {supported()}")


def refuse_checkpoint(shapes: Shapes, name: str) -> None:
    """Raises: ModelError: a single file is that of a model which cannot be trained here."""
    for piece, reason in _PIECES.items():
        if any(piece in key for key in shapes):
            raise ModelError(f"{name} {reason} {supported()}")
    into = shapes.get("model.diffusion_model.input_blocks.0.0.weight")
    out = shapes.get("model.diffusion_model.out.2.weight")
    if into is None or out is None:
        first = next(iter(shapes), "none")
        raise ModelError(
            f"{name} holds no UNet in the original layout (model.diffusion_model.*; its first tensor: {first}). Give a "
            "whole checkpoint, a folder with model_index.json or a hub name."
        )
    if into[1] != out[0]:
        raise ModelError(f"{name} {_INPAINTING} {supported()}")
