"""AUTOMATIC1111's WebUI: DoRA with one norm an input column, whatever the file says.

Rules: ``extensions-builtin/Lora/networks.py``, ``network.py`` and ``network_lora.py`` of 2024-07 (1.10): names are
turned into those of the original checkpoint by patterns that count two resnets a level; a scale with one number a row
broadcasts against the column norms to a whole matrix, silently.
"""

import re

from torch import Tensor

from dora_diffusion.formats.verify.arithmetic import column_norms, difference, stretched, update
from dora_diffusion.formats.verify.layer_names import flat
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, Found, Reading, left_over, refused

_RESNET = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"lora_unet_(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)")
_MIDDLE = re.compile(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)")
_SAMPLER = re.compile(r"lora_unet_(down|up)_blocks_(\d+)_(?:down|up)samplers_0_conv")
_TIME = re.compile(r"lora_unet_time_embedding_linear_(\d+)(.*)")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


class A1111Reader:
    """A1111's ``<lora:name:1>``, its weights in float32."""

    name = "a1111"
    rules = "A1111 1.10"
    stops = False

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        modules = _modules(base)
        parts: dict[str, dict[str, str]] = {}
        for key in file.tensors:
            prefix, _, part = key.partition(".")
            layer = modules.get(_original(prefix)) or modules.get(prefix)
            if layer is not None:
                parts.setdefault(layer, {})[part] = key
        spelled = {flat("lora_unet", path): f"unet.{path}" for path in base.unet_paths}
        prefixes = {key.partition(".")[0] for key in file.tensors}
        miscounted = sum(_is_miscounted(prefix, spelled.get(prefix), modules) for prefix in prefixes)
        layers = {}
        for layer, keys in parts.items():
            found = _found(file, keys)
            if found is None:
                return refused(file, f"{layer} has only {', '.join(keys)}, and it stops at the first such layer")
            layers[layer] = found
        layers = _whole_attentions(layers, base)
        # Embeddings that lie in the file are read as such.
        over = tuple(key for key in left_over(file, layers) if not key.startswith("bundle_emb."))
        by_row = sum(found.magnitude is not None and found.magnitude.shape[:1] != (1,) for found in layers.values())
        remarks = []
        if miscounted:
            remarks.append(f"it counts blocks as the published models do, and so misplaces {miscounted} of this base's")
        if by_row:
            remarks.append(f"{by_row} magnitudes are divided by the norms of input columns")
        return Reading(layers, over, remarks=tuple(remarks))

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        changed = update(found, weight) if found.diff is None else difference(found, weight)
        if found.magnitude is None:
            return weight + changed
        total = changed + weight
        return stretched(total, found.magnitude, column_norms(total))


def _modules(base: BaseWeights) -> dict[str, str]:
    """What it looks for (a key's first part, renamed or as it stands) to the layer."""
    found = {}
    for path, original in base.unet_paths.items():
        found[flat("diffusion_model", original)] = found[flat("lora_unet", original)] = f"unet.{path}"
    for layer, (component, path) in base.text_layers.items():
        inner = flat("", path).removeprefix("_text_model_encoder_layers_")
        if component == "text_encoder_2":
            found[f"lora_te2_text_model_encoder_layers_{inner}"] = layer
        elif base.family == "sdxl":
            found[f"lora_te1_text_model_encoder_layers_{inner}"] = layer
        else:
            found[f"lora_te_text_model_encoder_layers_{inner}"] = layer
            if base.family == "sd1":
                found[f"lora_te1_text_model_encoder_layers_{inner}"] = layer
    return found


def _is_miscounted(prefix: str, meant: str | None, modules: dict[str, str]) -> bool:
    """Whether a key with diffusers' numbers of a block is taken for another layer, or for none."""
    if meant is None or not (_BLOCK.match(prefix) or _SAMPLER.match(prefix)):
        return False
    return (modules.get(_original(prefix)) or modules.get(prefix)) != meant


def _original(prefix: str) -> str:
    """A key's first part with diffusers' names of the UNet turned into the original ones; any other unchanged."""
    if prefix.startswith("lora_unet_conv_in"):
        return "diffusion_model_input_blocks_0_0"
    if prefix.startswith("lora_unet_conv_out"):
        return "diffusion_model_out_2"
    if match := _TIME.match(prefix):
        return f"diffusion_model_time_embed_{2 * int(match[1]) - 2}{match[2]}"
    if match := _BLOCK.match(prefix):
        side, level, kind, index, inside = match.groups()
        number = 3 * int(level) + int(index) + (side == "down")
        return _inside(f"diffusion_model_{'input' if side == 'down' else 'output'}_blocks_{number}", kind, inside)
    if match := _MIDDLE.match(prefix):
        kind, index, inside = match.groups()
        place = 1 if kind == "attentions" else 2 * int(index)
        return f"diffusion_model_middle_block_{place}_{_RESNET.get(inside, inside) if kind == 'resnets' else inside}"
    if match := _SAMPLER.match(prefix):
        level = int(match[2])
        if match[1] == "down":
            return f"diffusion_model_input_blocks_{3 * level + 3}_0_op"
        return f"diffusion_model_output_blocks_{3 * level + 2}_{2 if level else 1}_conv"
    return prefix


def _inside(block: str, kind: str, inside: str) -> str:
    return f"{block}_1_{inside}" if kind == "attentions" else f"{block}_0_{_RESNET.get(inside, inside)}"


def _found(file: AdapterFile, keys: dict[str, str]) -> Found | None:
    """What one module is made of; None if no kind of module takes these keys."""
    tensors = file.tensors
    for up, down in (("lora_up.weight", "lora_down.weight"), ("lora_B.weight", "lora_A.weight")):
        if up in keys and down in keys:
            factors = tensors[keys[down]], tensors[keys[up]]
            scale = float(tensors[keys["alpha"]]) / factors[0].shape[0] if "alpha" in keys else 1.0
            taken = [keys[part] for part in (up, down, "alpha", "dora_scale") if part in keys]
            magnitude = tensors[keys["dora_scale"]] if "dora_scale" in keys else None
            return Found(tuple(taken), *factors, scale, magnitude)
    if "diff" in keys:
        magnitude = tensors[keys["dora_scale"]] if "dora_scale" in keys else None
        return Found(tuple(keys.values()), magnitude=magnitude, diff=tensors[keys["diff"]])
    return None


def _whole_attentions(layers: dict[str, Found], base: BaseWeights) -> dict[str, Found]:
    """OpenCLIP keeps q, k and v in one weight: it changes an attention only if the file has all four of its layers."""
    component = {"sd2": "text_encoder.", "sdxl": "text_encoder_2."}.get(base.family)
    if component is None:
        return layers

    def whole(layer: str) -> bool:
        head, _, last = layer.rpartition(".")
        joint = layer.startswith(component) and last in _ATTENTION
        return not joint or all(f"{head}.{part}" in layers for part in _ATTENTION)

    return {layer: found for layer, found in layers.items() if whole(layer)}


A1111 = A1111Reader()
