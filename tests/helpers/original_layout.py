"""diffusers' weights as the single file they came from: the inverse of what ``from_single_file`` does.

Written from the names in the original checkpoints (CompVis and Stability's "ldm" and "sgm" layouts).
"""

import re
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPENCLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def original_layout(pipe: Any) -> Tensors:
    """The checkpoint file of an SD 1.x, 2.x or XL pipeline."""
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in _unet(pipe.unet).items()}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in _vae(pipe.vae).items()}
    if hasattr(pipe, "text_encoder_2"):
        tensors |= _clip("conditioner.embedders.0.transformer.", pipe.text_encoder)
        tensors |= _openclip("conditioner.embedders.1.model.", pipe.text_encoder_2)
    elif pipe.text_encoder.config.hidden_act == "quick_gelu":
        tensors |= _clip("cond_stage_model.transformer.", pipe.text_encoder)
    else:
        tensors |= _openclip("cond_stage_model.model.", pipe.text_encoder)
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def _unet(unet: Any) -> Tensors:
    per_block = unet.config.layers_per_block + 1
    return {_unet_name(name, per_block, unet): tensor for name, tensor in unet.state_dict().items()}


def _unet_name(name: str, per_block: int, unet: Any) -> str:
    module, _, kind = name.rpartition(".")
    if module in _UNET_ENDS:
        return f"{_UNET_ENDS[module]}.{kind}"
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return f"middle_block.{place}.{_inside(parts[1], parts[3:])}"
    block, part, index, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
    if part == "downsamplers":
        return f"input_blocks.{(block + 1) * per_block}.0.op.{rest[-1]}"
    if part == "upsamplers":
        place = 2 if hasattr(unet.up_blocks[block], "attentions") else 1
        return f"output_blocks.{(block + 1) * per_block - 1}.{place}.conv.{rest[-1]}"
    first = 1 if parts[0] == "down_blocks" else 0
    side = "input_blocks" if parts[0] == "down_blocks" else "output_blocks"
    return f"{side}.{first + block * per_block + index}.{int(part == 'attentions')}.{_inside(part, rest)}"


def _inside(part: str, rest: list[str]) -> str:
    if part == "resnets":
        return ".".join([_RESNET[rest[0]], *rest[1:]])
    return ".".join(rest)


def _vae(vae: Any) -> Tensors:
    last = len(vae.config.block_out_channels) - 1
    tensors = {}
    for name, tensor in vae.state_dict().items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0" in new:
            head, inner = new.split("mid_block.attentions.0.")
            layer, _, kind = inner.rpartition(".")
            new = f"{head}mid.attn_1.{_VAE_ATTENTION[layer]}.{kind}"
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor  # 1x1 convolutions there
        tensors[new] = tensor
    return tensors


def _flat(text_encoder: Any) -> Tensors:
    """Names without the level "text_model", which transformers has in some classes and versions."""
    return {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}


def _clip(prefix: str, text_encoder: Any) -> Tensors:
    return {f"{prefix}text_model.{name}": tensor for name, tensor in _flat(text_encoder).items()}


def _openclip(prefix: str, text_encoder: Any) -> Tensors:
    flat = _flat(text_encoder)
    tensors = {
        "positional_embedding": flat["embeddings.position_embedding.weight"],
        "token_embedding.weight": flat["embeddings.token_embedding.weight"],
        "ln_final.weight": flat["final_layer_norm.weight"],
        "ln_final.bias": flat["final_layer_norm.bias"],
    }
    # Every file has a projection; SD 2.x never uses its own.
    width = text_encoder.config.hidden_size
    tensors["text_projection"] = (
        flat["text_projection.weight"].T if "text_projection.weight" in flat else torch.eye(width)
    )
    for k in range(text_encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{k}.", f"transformer.resblocks.{k}."
        for kind in ("weight", "bias"):
            rows = [flat[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{theirs}attn.in_proj_{kind}"] = torch.cat(rows)
            tensors[f"{theirs}attn.out_proj.{kind}"] = flat[f"{ours}self_attn.out_proj.{kind}"]
            tensors |= {f"{theirs}{new}.{kind}": flat[f"{ours}{old}.{kind}"] for old, new in _OPENCLIP.items()}
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
