"""The names of layers in other layouts, found from the layers that a UNet has.

Stable Diffusion's own checkpoints number a UNet's blocks through (``input_blocks.4.1``); diffusers names them
(``down_blocks.1.attentions.0``). With ``n`` resnets a level going down there are ``n + 1`` places a level on both
sides: going down the last one is the downsampler, going up every one is a resnet, and the upsampler shares the last.
"""

from collections.abc import Sequence

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def ldm_paths(paths: Sequence[str]) -> dict[str, str]:
    """diffusers' paths of a UNet's layers to those in the original layout; a layer that has none is left out."""
    places = _places_a_level(paths)
    with_attention = {path.split(".")[1] for path in paths if path.startswith("up_blocks.") and ".attentions." in path}
    found = {path: _ldm_path(path.split("."), places, with_attention) for path in paths}
    return {path: other for path, other in found.items() if other}


def _places_a_level(paths: Sequence[str]) -> int:
    resnets = [int(path.split(".")[3]) for path in paths if path.startswith("down_blocks.0.resnets.")]
    return max(resnets, default=1) + 2


def _ldm_path(parts: list[str], places: int, with_attention: set[str]) -> str:
    if parts[0] == "mid_block":
        place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return _in_block(f"middle_block.{place}", parts[1], parts[3:])
    if parts[0] not in ("down_blocks", "up_blocks"):
        return _OUTSIDE.get(".".join(parts), "")
    level, kind, index = int(parts[1]), parts[2], int(parts[3])
    if kind == "downsamplers":
        return f"input_blocks.{places * (level + 1)}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{places * (level + 1) - 1}.{2 if parts[1] in with_attention else 1}.conv"
    number = places * level + index
    block = f"input_blocks.{number + 1}" if parts[0] == "down_blocks" else f"output_blocks.{number}"
    return _in_block(f"{block}.{int(kind == 'attentions')}", kind, parts[4:])


def _in_block(block: str, kind: str, inside: list[str]) -> str:
    """A layer of a resnet or a transformer; what stands in neither has no place there."""
    if kind == "attentions":
        return ".".join([block, *inside])
    return f"{block}.{_IN_RESNET[inside[0]]}" if inside[0] in _IN_RESNET else ""


def flat(prefix: str, path: str) -> str:
    """A path as kohya's tools write it: ``lora_unet`` and ``conv_in.x`` give ``lora_unet_conv_in_x``."""
    return f"{prefix}_{path.replace('.', '_')}"
