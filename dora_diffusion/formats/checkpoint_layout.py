"""Where each tensor of a diffusers model lies in a one-file checkpoint: the layout A1111, ComfyUI and Forge load.

    model.diffusion_model.*                       the UNet, by CompVis' names
    first_stage_model.*                           the autoencoder
    cond_stage_model.transformer.*                SD 1.x: CLIP, by transformers' names
    cond_stage_model.model.*                      SD 2.x: OpenCLIP, q, k and v of a layer in one tensor
    conditioner.embedders.0.transformer.*         SDXL: CLIP
    conditioner.embedders.1.model.*               SDXL: OpenCLIP

Blocks are numbered by arithmetic on how many layers a block has, so that nothing is listed layer by layer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.formats.names import Layout, to_original

# Both as diffusers names them now, and as the files of published folders still do.
_VAE_ATTENTION = {
    **{"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"},
    **{"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"},
}
_OPENCLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPENCLIP_ENDS = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_QKV = ("q", "k", "v")
# (prefix, whether it is OpenCLIP) of a family's text encoders.
_TEXT_ENCODERS = {
    "sd1": {"text_encoder": ("cond_stage_model.transformer.", False)},
    "sd2": {"text_encoder": ("cond_stage_model.model.", True)},
    "sdxl": {
        "text_encoder": ("conditioner.embedders.0.transformer.", False),
        "text_encoder_2": ("conditioner.embedders.1.model.", True),
    },
}


@dataclass(frozen=True)
class Place:
    """Where one tensor lies.

    Args:
        key: the tensor's name in the checkpoint.
        part: of a fused ``in_proj``: 0 the rows of q, 1 of k, 2 of v; None: all of it.
        transposed: OpenCLIP's projection is stored (in, out).
        pointwise: the autoencoder's attention is stored as 1x1 convolutions.
    """

    key: str
    part: int | None = None
    transposed: bool = False
    pointwise: bool = False

    def take(self, stored: Tensor) -> Tensor:
        """The model's tensor, out of what the checkpoint has under ``key``: a view."""
        if self.part is not None:
            return stored.chunk(3)[self.part]
        if self.pointwise and stored.ndim == 4:
            return stored[:, :, 0, 0]
        return stored.mT if self.transposed else stored

    def shape(self, tensor: Tensor) -> Tensor:
        """The model's tensor as it is stored; of a fused one, its part."""
        if self.pointwise and tensor.ndim == 2:
            return tensor[:, :, None, None]
        return tensor.mT if self.transposed else tensor


@dataclass(frozen=True)
class CheckpointLayout:
    """The numbers that names in a checkpoint depend on.

    Args:
        family: a name in ``registry.FAMILIES``.
        unet: how its blocks are numbered.
        vae_blocks: of the autoencoder, which counts those of its decoder from the other end.
    """

    family: str
    unet: Layout
    vae_blocks: int = 4

    @classmethod
    def of(cls, family: str, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> "CheckpointLayout":
        """From the configurations of a UNet and an autoencoder."""
        bare = frozenset(k for k, kind in enumerate(unet["up_block_types"]) if kind == "UpBlock2D")
        return cls(family, Layout(int(unet["layers_per_block"]), bare), len(vae["block_out_channels"]))

    def place(self, component: str, name: str) -> Place | None:
        """Where the tensor ``name`` of a component ("unet", "vae", "text_encoder", "text_encoder_2") lies.

        None for what checkpoints do not hold: the numbers of positions, which every reader counts by itself.
        """
        if component == "unet":
            return Place(f"model.diffusion_model.{self._unet(name)}")
        if component == "vae":
            return self._vae(name)
        prefix, openclip = _TEXT_ENCODERS[self.family][component]
        bare = name.removeprefix("text_model.")
        if bare == "embeddings.position_ids":
            return None
        if openclip:
            return _openclip(prefix, bare)
        return Place(f"{prefix}text_model.{bare}")

    def _unet(self, name: str) -> str:
        module, _, kind = name.rpartition(".")
        if module == "conv_norm_out":
            return f"out.0.{kind}"
        if norm := re.fullmatch(r"(.+\.resnets\.\d+)\.norm([12])", module):  # in front of its convolution
            before = to_original(f"{norm[1]}.conv{norm[2]}", self.unet).rpartition(".")[0]
            return f"{before}.0.{kind}"
        return f"{to_original(module, self.unet)}.{kind}"

    def _vae(self, name: str) -> Place:
        last = self.vae_blocks - 1
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        head, attention, inner = new.partition("mid_block.attentions.0.")
        if not attention:
            return Place(f"first_stage_model.{new}")
        layer, _, kind = inner.rpartition(".")
        stored = _VAE_ATTENTION[layer]
        return Place(f"first_stage_model.{head}mid.attn_1.{stored}.{kind}", pointwise=stored != "norm")


def _openclip(prefix: str, name: str) -> Place:
    if name in _OPENCLIP_ENDS:
        return Place(f"{prefix}{_OPENCLIP_ENDS[name]}")
    if name == "text_projection.weight":
        return Place(f"{prefix}text_projection", transposed=True)
    number, _, inner = name.removeprefix("encoder.layers.").partition(".")
    module, _, kind = inner.rpartition(".")
    block = f"{prefix}transformer.resblocks.{number}."
    fused = re.fullmatch(r"self_attn\.([qkv])_proj", module)
    if fused:
        return Place(f"{block}attn.in_proj_{kind}", part=_QKV.index(fused[1]))
    return Place(f"{block}{_OPENCLIP[module]}.{kind}")


def unused_tensors(layout: CheckpointLayout, keys: Mapping[str, Any], width: int) -> dict[str, Tensor | str]:
    """What a file of SD 2.x holds besides, which nothing computes with and readers miss: a projection (ones on its
    diagonal), whose size tells where q, k and v part, and OpenCLIP's last layer, given as the key of the layer before.

    Args:
        keys: of the checkpoint so far.
        width: of the text encoder.
    """
    if layout.family != "sd2":
        return {}
    prefix, _ = _TEXT_ENCODERS["sd2"]["text_encoder"]
    found: dict[str, Tensor | str] = {f"{prefix}text_projection": torch.eye(width)}
    blocks = f"{prefix}transformer.resblocks."
    numbers = {int(key.removeprefix(blocks).partition(".")[0]) for key in keys if key.startswith(blocks)}
    if numbers == set(range(_SD2_LAYERS)):
        last = f"{blocks}{_SD2_LAYERS - 1}."
        found |= {key.replace(last, f"{blocks}{_SD2_LAYERS}."): key for key in keys if key.startswith(last)}
    return found


_SD2_LAYERS = 23  # of OpenCLIP's 24, as its folders count them: the family reads the output of the last but one
