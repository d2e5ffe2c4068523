"""sd-scripts' own code: ``networks.lora`` made from the file's weights, merged into the model."""

import re
import sys
from pathlib import Path

import torch
from kit import Answer, Base, stand_in, work
from lycoris_worker import models
from safetensors.torch import load_file
from torch import nn

# Which class stands at a path, in either layout: its targets are found by the names of classes.
_CLASSES = {
    r".*attentions\.\d+|(input|output)_blocks\.\d+\.1|middle_block\.1": "Transformer2DModel",
    r".*resnets\.\d+|(input|output)_blocks\.\d+\.0|middle_block\.[02]": "ResnetBlock2D",
    r".*downsamplers\.0": "Downsample2D",
    r".*upsamplers\.0|output_blocks\.\d+\.2": "Upsample2D",
    r".*self_attn": "CLIPAttention",
    r".*mlp": "CLIPMLP",
}


def read(base: Base, file: Path) -> Answer:
    from library.sdxl_original_unet import SdxlUNet2DConditionModel
    from networks.lora import create_network_from_weights

    def kind(path: str) -> type[nn.Module]:
        if path == "" and base.family == "sdxl":
            return SdxlUNet2DConditionModel
        name = next((name for pattern, name in _CLASSES.items() if re.fullmatch(pattern, path)), "Module")
        # In the original layout conv_in stands where a resnet would: its block is a list of one layer.
        return nn.Module if path == "input_blocks.0" or name == "Module" else type(name, (nn.Module,), {})

    unet, texts, merged = models(base, kind)
    text = list(texts.values())
    network, weights = create_network_from_weights(
        1.0, None, None, text, unet, weights_sd=load_file(file), for_inference=True
    )
    network.merge_to(text, unet, weights, torch.float32, "cpu")
    return Answer({name: part.weight for name, part in merged.items()})


if __name__ == "__main__":
    # Before the stand-ins, which these would take for the packages.
    from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler  # noqa: F401
    from transformers import CLIPTextModel  # noqa: F401

    sys.path.insert(0, sys.argv[1])
    stand_in("einops", "torchvision", "cv2", "toml", "rich")
    work(read)
