"""What the files with kohya's names (``kohya``, ``comfyui``, ``diff``) have in common."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.errors import ConfigError, FormatError
from dora_diffusion.formats.files import write_safetensors
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.header import PREFIX, hashes, modelspec_header, network_header, own_header
from dora_diffusion.formats.names import SDXL_LAYOUT, Layout, family_of, kohya
from dora_diffusion.formats.rounding import round_to

_STABILITY = "https://github.com/Stability-AI/generative-models"


def family(state: AdapterState, base: Base | None) -> str:
    """The adapter's model family, from its layers' shapes; where these do not tell, from its base.

    Raises:
        ConfigError: nobody knows.
    """
    found = family_of({name: layer.weight_shape for name, layer in state.layers.items()})
    if found is not None:
        return found
    if base is None:
        raise ConfigError(
            "The adapter's layers do not tell whether it is for Stable Diffusion 1.x, 2.x or XL, whose files name them "
            "differently. Give its base with --pretrained_model_name_or_path."
        )
    return base.family


def layout(state: AdapterState, base: Base | None, family: str) -> Layout:
    """How the blocks of the adapter's UNet are numbered in original checkpoints.

    Raises:
        ConfigError: the UNet is none of the published ones, and its base was not given.
    """
    names = [name for name in state.layers if name.startswith("unet.")]
    published = any(".attn2.to_" in name and 2048 in state.layers[name].weight_shape for name in names)
    if family != "sdxl" or published or not names:
        return SDXL_LAYOUT
    if base is None:
        raise ConfigError(
            "The adapter's UNet has not the shapes of Stable Diffusion XL's, so its blocks cannot be numbered without "
            "its base. Give it with --pretrained_model_name_or_path."
        )
    return Layout.of(base.weights)


def spellings(state: AdapterState, family: str, layout: Layout) -> dict[str, str]:
    """Every layer's name in kohya's spelling, by canonical name."""
    return {name: kohya(name, family, layout) for name in state.layers}


def with_one_alpha(state: AdapterState) -> AdapterState:
    """``state`` with the same alpha in every layer, the one most have; what others have more or less goes into ``B``.

    diffusers (0.42) looks up alphas that differ between layers under names that attention layers do not have, and gives
    those layers the most frequent one.
    """
    counts = Counter(layer.scale * layer.rank for layer in state.layers.values())
    alpha = counts.most_common(1)[0][0]
    return replace(state, layers={name: _with_alpha(layer, alpha) for name, layer in state.layers.items()})


def _with_alpha(layer: LayerState, alpha: float) -> LayerState:
    if layer.scale * layer.rank == alpha:
        return layer
    scale = alpha / layer.rank
    return replace(layer, B=layer.B * (layer.scale / scale), scale=scale)


def factor_tensors(state: AdapterState, spelled: Mapping[str, str], precision: Precision) -> dict[str, Tensor]:
    """``lora_down``, ``lora_up`` and ``alpha`` of every layer.

    Raises:
        FormatError: a value is too large for fp16.
    """
    tensors = {}
    for name, layer in state.layers.items():
        key, shape = spelled[name], layer.weight_shape
        conv = len(shape) == 4
        A = layer.A.view(layer.rank, *shape[1:]) if conv else layer.A
        B = layer.B.view(shape[0], layer.rank, 1, 1) if conv else layer.B
        tensors[f"{key}.lora_down.weight"] = round_to(A, precision, name)
        tensors[f"{key}.lora_up.weight"] = round_to(B, precision, name)
        tensors[f"{key}.alpha"] = torch.tensor(layer.scale * layer.rank)
    return tensors


def row_shaped(vector: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A vector of one number per output row as kohya's files have it: (out, 1) or (out, 1, 1, 1)."""
    return vector.view(-1, *(1,) * (len(shape) - 1))


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    state: AdapterState,
    family: str,
    layout: Layout,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write the tensors with every header that readers of such files look into.

    Raises:
        MachineError: the disk.
    """
    said = header(path, state, family, layout)
    write_safetensors(path, tensors, said | hashes(tensors, said) | dict(extra or {}))


def header(path: Path, state: AdapterState, family: str, layout: Layout) -> dict[str, str]:
    """All but the hashes."""
    said = own_header(state) | network_header(state, path, family)
    said |= modelspec_header(state, path, family, _STABILITY if family == "sdxl" else "diffusers")
    if layout != SDXL_LAYOUT:
        said[f"{PREFIX}layout"] = layout.to_text()
    return said


def read_layout(path: Path, header: Mapping[str, str]) -> Layout:
    """How this file numbers blocks; other tools' files are all of published UNets.

    Raises:
        FormatError: the header is damaged.
    """
    text = header.get(f"{PREFIX}layout")
    if text is None:
        return SDXL_LAYOUT
    try:
        return Layout.from_text(text)
    except ValueError:
        raise FormatError(f"{path} has a header that cannot be read: {PREFIX}layout is {text[:40]!r}.") from None
