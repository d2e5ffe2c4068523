"""Files as they are met: made by other tools, for other tools, or by mistake."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState


@dataclass(frozen=True)
class WildFile:
    """A file's tensors and header."""

    tensors: Mapping[str, Tensor]
    header: Mapping[str, str] = field(default_factory=dict)


def kohya(state: AdapterState, family: str, original: Mapping[str, str], scales: str = "rows") -> WildFile:
    """LyCORIS's layout. ``scales``: "rows" as LyCORIS has them, "flat" one-dimensional, "columns" of its old axis."""
    tensors = {}
    for name, layer in state.layers.items():
        prefix = kohya_name(name, family, original)
        tensors |= {f"{prefix}.{part}": tensor for part, tensor in factors(layer).items()}
        tensors[f"{prefix}.alpha"] = torch.tensor(layer.scale * layer.rank)
        if layer.magnitude is not None:
            tensors[f"{prefix}.dora_scale"] = _scales(layer, scales)
    return WildFile(tensors)


def kohya_name(name: str, family: str, original: Mapping[str, str]) -> str:
    component, _, path = name.partition(".")
    if component == "unet":
        return f"lora_unet_{(original[path] if family == 'sdxl' else path).replace('.', '_')}"
    prefix = "lora_te" if family != "sdxl" else {"text_encoder": "lora_te1"}.get(component, "lora_te2")
    return f"{prefix}_{path.replace('.', '_')}"


def factors(layer: LayerState) -> dict[str, Tensor]:
    shape = layer.weight_shape
    ones = [1] * (len(shape) - 2)
    return {
        "lora_up.weight": layer.B.reshape(shape[0], layer.rank, *ones),
        "lora_down.weight": layer.A.reshape(layer.rank, *shape[1:]),
    }


def _scales(layer: LayerState, kind: str) -> Tensor:
    shape = layer.weight_shape
    assert layer.magnitude is not None
    if kind == "flat":
        return layer.magnitude
    if kind == "rows":
        return layer.magnitude.reshape(-1, *[1] * (len(shape) - 1))
    # Any positive number a column will do: what is asked is what a reader makes of the shape.
    return torch.linspace(0.5, 1.5, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))


def without(file: WildFile, *endings: str) -> WildFile:
    """The file without the keys that end so."""
    return WildFile({key: t for key, t in file.tensors.items() if not key.endswith(endings)}, file.header)


def with_alphas(file: WildFile, alphas: Mapping[str, float]) -> WildFile:
    """The file with another alpha in every layer whose name has one of these parts."""
    tensors = dict(file.tensors)
    for key in tensors:
        for part, alpha in alphas.items():
            if key.endswith(".alpha") and part in key:
                tensors[key] = torch.tensor(alpha)
    return WildFile(tensors, file.header)


def peft_keys(state: AdapterState, magnitude: str = ".lora_magnitude_vector.weight") -> WildFile:
    """What diffusers' ``save_lora_weights`` gives, alphas folded in."""
    tensors = {}
    for name, layer in state.layers.items():
        parts = factors(layer)
        tensors[f"{name}.lora_A.weight"] = parts["lora_down.weight"]
        tensors[f"{name}.lora_B.weight"] = parts["lora_up.weight"] * layer.scale
        if layer.magnitude is not None:
            tensors[f"{name}{magnitude}"] = _peft_magnitude(layer)
    return WildFile(tensors)


def _peft_magnitude(layer: LayerState) -> Tensor:
    assert layer.magnitude is not None
    return layer.magnitude if len(layer.weight_shape) == 2 else layer.magnitude.reshape(1, -1, 1, 1)


def old_keys(state: AdapterState) -> WildFile:
    """The older spelling of diffusers' attention processors, with magnitudes."""
    tensors = {}
    for name, layer in state.layers.items():
        old = name.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
        between = "_lora" if ".processor." in old else ".lora"
        parts = factors(layer)
        tensors[f"{old}{between}.down.weight"] = parts["lora_down.weight"]
        tensors[f"{old}{between}.up.weight"] = parts["lora_up.weight"] * layer.scale
        if layer.magnitude is not None:
            tensors[f"{old}.lora_magnitude_vector.weight"] = _peft_magnitude(layer)
    return WildFile(tensors)


def differences(state: AdapterState, family: str, original: Mapping[str, str]) -> WildFile:
    """Full differences under kohya's names, of any size."""
    generator = torch.Generator().manual_seed(3)
    return WildFile(
        {
            f"{kohya_name(name, family, original)}.diff": 0.01 * torch.randn(layer.weight_shape, generator=generator)
            for name, layer in state.layers.items()
        }
    )
