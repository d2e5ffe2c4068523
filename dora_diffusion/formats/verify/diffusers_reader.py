"""diffusers' ``pipe.load_lora_weights`` over PEFT: one norm an output row, of the sum.

Rules: ``loaders/lora_pipeline.py``, ``loaders/peft.py``, ``loaders/lora_base.py``, ``loaders/lora_conversion_utils.py``
and ``utils/state_dict_utils.py`` of diffusers 0.42, with PEFT 0.21 and transformers 5. What it does silently:

- a file in kohya's names loses its ``dora_scale`` and is run as plain LoRA;
- whether the UNet's keys are PEFT's or the older ones is decided by the first of them;
- without metadata a layer's alpha is its rank, and a component is DoRA if one of its keys is a magnitude;
- transformers 5 drops a text encoder's magnitude whose key does not end in ``.weight`` and keeps the base's norms.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from dora_diffusion.formats.verify.arithmetic import difference, row_norms, stretched, update
from dora_diffusion.formats.verify.layer_names import flat
from dora_diffusion.formats.verify.reading import (
    AdapterFile,
    BaseWeights,
    Found,
    MisfitError,
    Reading,
    left_over,
    refused,
)

KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
Parts = dict[str, dict[str, str]]  # layer to its tensors' keys, by what they are

# The older spelling of the UNet's keys: the first of these that is found in a key is replaced.
_OLD_UNET = {
    ".to_out_lora.up": ".to_out.0.lora_B",
    ".to_out_lora.down": ".to_out.0.lora_A",
    ".to_q_lora.down": ".to_q.lora_A",
    ".to_q_lora.up": ".to_q.lora_B",
    ".to_k_lora.down": ".to_k.lora_A",
    ".to_k_lora.up": ".to_k.lora_B",
    ".to_v_lora.down": ".to_v.lora_A",
    ".to_v_lora.up": ".to_v.lora_B",
    ".lora.up": ".lora_B",
    ".lora.down": ".lora_A",
    ".to_out.lora_magnitude_vector": ".to_out.0.lora_magnitude_vector",
}
_OLD_TEXT = {".lora_linear_layer.up": ".lora_B", ".lora_linear_layer.down": ".lora_A"}
_COMPONENTS = ("unet", "text_encoder", "text_encoder_2")


class DiffusersReader:
    """``load_lora_weights`` at scale 1, its weights in float32."""

    name = "diffusers"
    rules = "diffusers 0.42, PEFT 0.21, transformers 5"
    stops = True

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        keys = [key for key in file.tensors if "dora_scale" not in key]
        scales = len(file.tensors) - len(keys)
        remarks = [f"{scales} DoRA scales are filtered out, with a warning"] if scales else []
        if keys and all(key.startswith(KOHYA) for key in keys):
            return _kohya(file, base, keys, remarks)
        if foreign := next((key for key in keys if "lora" not in key), None):
            return refused(file, f'the name {foreign} has no "lora" in it, and every name must')
        layers: dict[str, Found] = {}
        for component in _COMPONENTS:
            inside = [key for key in keys if key.startswith(f"{component}.")]
            parts = _parts(component, inside, base)
            why = _component(file, component, parts, layers, remarks)
            if why:
                return refused(file, why)
        return Reading(layers, left_over(file, layers), remarks=tuple(remarks))

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        return merge(found, weight)


def merge(found: Found, weight: Tensor) -> Tensor:
    """PEFT's: ``V * magnitude / ||V||`` a row, ``V = W0 + scale B A``."""
    if found.diff is not None:
        return weight + difference(found, weight)
    _check_shapes(found, tuple(weight.shape))
    total = weight + update(found, weight)
    if found.keeps_norm:
        return stretched(total, row_norms(weight), row_norms(total))
    if found.magnitude is None:
        return total
    magnitude = found.magnitude.reshape(-1, *[1] * (weight.ndim - 1))
    return stretched(total, magnitude, row_norms(total))


def _check_shapes(found: Found, shape: tuple[int, ...]) -> None:
    """Raises: MisfitError: PEFT makes its own tensors of other shapes, and cannot load these into them."""
    assert found.down is not None and found.up is not None
    rank = found.up.shape[1] if found.up.ndim > 1 else 0
    ones = [1] * (len(shape) - 2)
    wanted = {
        "lora_A": (found.down, (rank, *shape[1:])),
        "lora_B": (found.up, (shape[0], rank, *ones)),
        MAGNITUDE: (found.magnitude, (1, shape[0], *ones) if ones else (shape[0],)),
    }
    for part, (tensor, expected) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != expected:
            raise MisfitError(f"a {part} {list(tensor.shape)} where {list(expected)} is wanted")


def _parts(component: str, keys: list[str], base: BaseWeights) -> Parts:
    """The layers of one component and their keys; what stands for no layer is left out."""
    old = component == "unet" and bool(keys) and "lora_A" not in keys[0]
    parts: Parts = {}
    for key in keys:
        name = key
        if component == "unet" and old:
            name = _respelled(name.replace(".processor.", "."), _OLD_UNET)
        elif component != "unet":
            name = _respelled(name, _OLD_TEXT)
        head, _, part = name.partition(".lora_")
        if component == "text_encoder" and not head.startswith("text_encoder.text_model."):
            # transformers 5 has no such level in this one, and takes names with and without it.
            head = f"text_encoder.text_model.{head.removeprefix('text_encoder.')}"
        if part and head in base.weights:
            parts.setdefault(head, {})[f"lora_{part}"] = key
    return parts


def _respelled(key: str, spelling: Mapping[str, str]) -> str:
    for old, new in spelling.items():
        if old in key:
            return key.replace(old, new)
    return key


def _component(
    file: AdapterFile,
    component: str,
    parts: Parts,
    layers: dict[str, Found],
    remarks: list[str],
) -> str:
    """Add a component's layers to ``layers``. Returns why nothing is loaded, or nothing."""
    given = _metadata(file, component)
    magnitudes = {layer: _magnitude_key(keys) for layer, keys in parts.items()}
    has_dora = bool(given.get("use_dora")) if given else any(magnitudes.values())
    if given is not None and parts and not given:
        return f"the metadata has nothing about {component}, which has keys"
    if any(magnitudes.values()) and not has_dora:
        remarks.append(f"the metadata does not say use_dora for {component}: its magnitudes are not looked at")
    for layer, keys in parts.items():
        if DOWN not in keys or UP not in keys:
            return f"{layer} lacks a factor"
        magnitude = magnitudes[layer] if has_dora else None
        if has_dora and magnitude is None:
            return f"{layer} has no magnitude, and other layers of {component} have one"
        down, up = file.tensors[keys[DOWN]], file.tensors[keys[UP]]
        taken = (keys[DOWN], keys[UP], *([magnitude] if magnitude else []))
        found = Found(taken, down, up, _scale(given, layer, len(down)), file.tensors[magnitude] if magnitude else None)
        if magnitude and component != "unet" and not magnitude.endswith(".weight"):
            found = Found(taken[:2], down, up, found.scale, keeps_norm=True)
        layers[layer] = found
    lost = sum(layers[layer].keeps_norm for layer in parts)
    if lost:
        remarks.append(f"transformers 5 drops {lost} magnitudes of {component} whose keys do not end in .weight")
    return ""


def _magnitude_key(keys: Mapping[str, str]) -> str | None:
    return keys.get(f"{MAGNITUDE}.weight") or keys.get(MAGNITUDE)


def _metadata(file: AdapterFile, component: str) -> dict[str, Any] | None:
    """What ``lora_adapter_metadata`` says of a component; None if the file has no such metadata."""
    if "lora_adapter_metadata" not in file.header:
        return None
    everything = json.loads(file.header["lora_adapter_metadata"])
    return {k.removeprefix(f"{component}."): v for k, v in everything.items() if k.startswith(f"{component}.")}


def _scale(given: Mapping[str, Any] | None, layer: str, rank: int) -> float:
    return 1.0 if not given else config_scale(given, layer.partition(".")[2], rank)


def config_scale(config: Mapping[str, Any], path: str, rank: int) -> float:
    """alpha / rank of a ``LoraConfig``: a pattern is the end of a layer's path, or of all of it."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    own = [value for end, value in patterns.items() if path == end.lstrip("^") or path.endswith(f".{end.lstrip('^')}")]
    alpha = own[0] if own else config.get("lora_alpha", rank)
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _kohya(file: AdapterFile, base: BaseWeights, keys: list[str], remarks: list[str]) -> Reading:
    """A file in kohya's names: plain LoRA; a key that is none of the three kinds ends the loading."""
    names = _kohya_names(base)
    layers: dict[str, Found] = {}
    for key in keys:
        name, _, part = key.partition(".")
        layer = names.get(name)
        if part not in ("lora_down.weight", "lora_up.weight", "alpha"):
            return refused(file, f"{key} is none of the keys it can rename, and it stops there")
        if part != "lora_down.weight" or layer is None:
            continue
        up, alpha = f"{name}.lora_up.weight", f"{name}.alpha"
        if up not in file.tensors:
            return refused(file, f"{name} has no lora_up")
        taken = (key, up, *([alpha] if alpha in file.tensors else []))
        layers[layer] = Found(taken, file.tensors[key], file.tensors[up])
    if any(key.startswith("lora_unet_") for key in keys) and not any(layer.startswith("unet.") for layer in layers):
        return refused(file, "none of the UNet's keys is a layer under the names it gives them")
    for component in ("text_encoder", "text_encoder_2"):
        if why := _lost_attention(component, layers, remarks):
            return refused(file, why)
    for component in _COMPONENTS:
        _scale_by_alphas(file, component, layers, remarks)
    return Reading(layers, left_over(file, layers), remarks=tuple(remarks))


def _kohya_names(base: BaseWeights) -> dict[str, str]:
    """What it renames right: the original names of blocks for SDXL alone, where two layers have no other."""
    names = {}
    for path, original in base.unet_paths.items():
        if base.family == "sdxl" or not path.startswith(("down_blocks.", "mid_block.", "up_blocks.")):
            names[flat("lora_unet", original)] = f"unet.{path}"
        if not path.startswith("add_embedding."):
            names[flat("lora_unet", path)] = f"unet.{path}"
    for layer, (component, path) in base.text_layers.items():
        for prefix in ("lora_te", "lora_te1") if component == "text_encoder" else ("lora_te2",):
            names[flat(prefix, path)] = layer
    return names


def _scale_by_alphas(file: AdapterFile, component: str, layers: dict[str, Found], remarks: list[str]) -> None:
    """Give a component's layers their scale. The alpha that most of them have is everybody's but for a list of others,
    and an attention's name in that list is one that no layer has (nor is the first text encoder's any layer).
    """
    inside = {layer: found for layer, found in layers.items() if layer.startswith(f"{component}.")}
    alphas = {layer: float(file.tensors[found.keys[2]]) for layer, found in inside.items() if len(found.keys) > 2}
    if not alphas:
        return
    common = Counter(alphas.values()).most_common(1)[0][0]
    lost = 0
    for layer, found in inside.items():
        own = alphas.get(layer, common)
        listed = component != "text_encoder" and ".attn" not in layer and ".self_attn." not in layer
        lost += own != common and not listed
        rank = file.tensors[found.keys[0]].shape[0]
        layers[layer] = replace(found, scale=(own if listed else common) / rank)
    if lost:
        remarks.append(f"{component} has several alphas: {lost} layers get {common:g}, which most of them have")


def _lost_attention(component: str, layers: dict[str, Found], remarks: list[str]) -> str:
    """A text encoder's attention is renamed on the way, and back only where a key of ``out_proj`` tells of it.

    Takes the layers that get lost out of ``layers``. Returns why nothing is loaded, or nothing.
    """
    inside = [layer for layer in layers if layer.startswith(f"{component}.")]
    attention = [layer for layer in inside if ".self_attn." in layer]
    if not attention or any(layer.endswith(".out_proj") for layer in inside):
        return ""
    if len(attention) == len(inside):
        return f"{component} has attention without out_proj, from which it cannot tell the kind of its keys"
    remarks.append(f"{component} has no out_proj: without it {len(attention)} other layers of its attention are lost")
    for layer in attention:
        del layers[layer]
    return ""


DIFFUSERS = DiffusersReader()
