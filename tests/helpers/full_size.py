"""The layers of full-size models, without their weights."""

import json
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.models.single_file import CONFIGURATIONS
from dora_diffusion.models.targets import layer_name

FULL_SIZE = {"sd1": "sd1", "sd2": "sd2-768-v", "sdxl": "sdxl"}
COUNTS = {"sd1": 354, "sd2": 420, "sdxl": 1059}  # 282, 282, 794 in the UNet; six a layer of CLIP; SDXL's projection


@lru_cache
def full_size_shapes(family: str) -> dict[str, tuple[int, ...]]:
    """Every Linear's and Conv2d's weight shape by canonical name."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    folder = CONFIGURATIONS / FULL_SIZE[family]
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {"unet": UNet2DConditionModel.from_config(_read(folder / "unet"))}
        for name, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
            if (folder / name).is_dir():
                parts[name] = kind(CLIPTextConfig(**_read(folder / name)))
    return {
        layer_name(component, path): tuple(module.weight.shape)
        for component, model in parts.items()
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _read(folder: Path) -> dict[str, object]:
    name = "config.json"
    return dict(json.loads((folder / name).read_text(encoding="utf-8")))


def full_size_state(family: str, kind: str, pattern: str = "") -> AdapterState:
    """A rank-1 adapter of every layer whose name holds ``pattern``, its numbers telling the layers apart."""
    layers = {}
    for number, (name, shape) in enumerate(full_size_shapes(family).items()):
        if pattern in name:
            columns = torch.Size(shape[1:]).numel()
            A, B = torch.full((1, columns), number + 1.0), torch.full((shape[0], 1), 2.0)
            layers[name] = LayerState(A, B, 0.5, torch.full((shape[0],), 3.0) if kind == "dora" else None, shape)
    return AdapterState(kind, layers)
