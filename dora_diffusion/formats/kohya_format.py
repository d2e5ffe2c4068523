"""kohya's layout with LyCORIS' ``dora_scale``: what LyCORIS, OneTrainer, sd-scripts and ai-toolkit write.

    lora_unet_<path with _>.lora_down.weight     (rank, in) or (rank, in, kh, kw)
    lora_unet_<path with _>.lora_up.weight       (out, rank) or (out, rank, 1, 1)
    lora_unet_<path with _>.alpha                scalar: scale * rank
    lora_unet_<path with _>.dora_scale           (out, 1) or (out, 1, 1, 1): the magnitude, one norm per output row
    lora_te_text_model_encoder_layers_0_<...>    the same; SDXL: lora_te1_ and lora_te2_

This is what the numbers mean in LyCORIS since 3.2 and in OneTrainer with "decompose output axis". ComfyUI and Forge
divide by another norm (see ``comfyui_format``), A1111 knows the other axis alone.

Read are both axes, told apart by shape. A norm per *input column*, ``(1, in)``, is no magnitude of ours: such a file is
read, together with its base, as the full differences ``W' - W0``, exactly; without the base it is refused. A missing
alpha means scale 1 to every reader; it does so here if all layers miss it and the header states no other.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.adapters.fingerprint import fingerprint
from dora_diffusion.errors import FormatError
from dora_diffusion.formats import kohya_file
from dora_diffusion.formats import parts as of
from dora_diffusion.formats.base_weights import weights_for
from dora_diffusion.formats.differences import full_rank
from dora_diffusion.formats.files import check_finite
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.header import read_own, stated_alpha
from dora_diffusion.formats.names import canonical

_TINY = 1e-12
# Of LyCORIS' other kinds too, so that they are refused by what they are.
_KNOWN_BY = (".lora_down.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a", ".oft_blocks", ".a1.weight")


class KohyaFormat:
    """Writes LyCORIS-true files, and reads what other trainers write under kohya's names."""

    name = "kohya"
    readers = "LyCORIS, OneTrainer (decompose output axis), sd-scripts with lycoris.kohya; LoRA: every tool"
    suffix = ".safetensors"
    needs_base = False
    carries_words = False

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format."""
        return any(key.endswith(_KNOWN_BY) for key in keys) and "dora_diffusion.magnitude" not in keys

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write ``state``. Raises: FormatError: fp16 cannot hold it; ConfigError: its family cannot be told;
        MachineError.
        """
        family = kohya_file.family(state, base)
        layout = kohya_file.layout(state, base, family)
        spelled = kohya_file.spellings(state, family, layout)
        state = kohya_file.with_one_alpha(state)
        tensors = kohya_file.factor_tensors(state, spelled, precision)
        for name, layer in state.layers.items():
            if layer.magnitude is not None:
                tensors[f"{spelled[name]}.dora_scale"] = kohya_file.row_shaped(layer.magnitude, layer.weight_shape)
        kohya_file.write(path, tensors, state, family, layout)

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read a LoRA or DoRA under kohya's, the originals' or OneTrainer's names. See ``Format.read``."""
        check_finite(path, tensors)
        layers = read_layers(path, tensors, header)
        base_name, prints, metadata = read_own(path, header)
        plain = {name: layer for name, (layer, _) in layers.items()}
        norms = {name: norm for name, (_, norm) in layers.items() if norm is not None}
        if not norms:
            return AdapterState("lora", plain, base_name, prints, metadata)
        axis = norm_axis(path, plain, norms)
        if axis == 0:
            flat = {name: replace(layer, magnitude=norms[name].reshape(-1)) for name, layer in plain.items()}
            return AdapterState("dora", flat, base_name, prints, metadata)
        state = AdapterState("lora", plain, base_name, prints, metadata)
        return by_columns(path, state, norms, base)


def read_layers(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]
) -> dict[str, tuple[LayerState, Tensor | None]]:
    """Every layer's factors with their scale, and its norms in the file's shape or None.

    Raises:
        FormatError: the file is not whole, or contradicts itself.
    """
    layout = kohya_file.read_layout(path, header)
    layers = of.split(path, tensors, lambda spelled: canonical(spelled, layout))
    has_scale = of.check_all_or_none(path, layers, of.SCALE, "a dora_scale")
    has_magnitude = of.check_all_or_none(path, layers, of.MAGNITUDE, "a magnitude")
    has_alpha = of.check_all_or_none(path, layers, of.ALPHA, "an alpha")
    if has_scale and has_magnitude:
        raise FormatError(f"{path} has a dora_scale and a magnitude for one layer; no reader's layout has both.")
    if not has_alpha:
        _check_no_alpha(path, header, has_magnitude)
    read = {}
    for name, parts in layers.items():
        layer = of.factors(path, name, parts, 1.0)
        if has_alpha:
            layer = replace(layer, scale=_alpha(path, parts[of.ALPHA]) / layer.rank)
        norm = parts[of.SCALE][1].float() if has_scale else None
        if has_magnitude:
            norm = kohya_file.row_shaped(of.magnitude(path, name, parts[of.MAGNITUDE], layer), layer.weight_shape)
        read[name] = (layer, norm)
    return read


def _alpha(path: Path, part: of.Part) -> float:
    key, tensor = part
    if tensor.numel() != 1:
        raise FormatError(f"{path}: {key} is of shape {list(tensor.shape)}; an alpha is one number.")
    alpha = float(tensor)
    if not math.isfinite(alpha) or alpha <= 0:
        raise FormatError(f"{path}: {key} is {alpha:g}; an alpha is a number above 0.")
    return alpha


def _check_no_alpha(path: Path, header: Mapping[str, str], has_magnitude: bool) -> None:
    stated = stated_alpha(header)
    if stated is not None and stated[0] != stated[1]:
        raise FormatError(
            f"{path} has lost its alphas: its header states alpha {stated[1]:g} at rank {stated[0]:g}, and no layer "
            "has one. Take the file as its trainer wrote it."
        )
    if has_magnitude and stated is None:
        raise FormatError(
            f"{path} is a DoRA of ai-toolkit's without alphas: under these names it was trained with an alpha that the "
            "file does not keep, so what it does cannot be told."
        )


def norm_axis(path: Path, layers: Mapping[str, LayerState], norms: Mapping[str, Tensor]) -> int:
    """0 for norms per output row, 1 per input column.

    Raises:
        FormatError: a shape that is neither, or both in one file.
    """
    axes = {name: _axis(path, name, norm, layers[name].weight_shape) for name, norm in norms.items()}
    if len(set(axes.values())) > 1:
        rows, columns = (next(name for name, axis in axes.items() if axis == k) for k in (0, 1))
        raise FormatError(
            f"{path} mixes norms per output row ({rows}) and per input column ({columns}); it is not one adapter."
        )
    return axes.popitem()[1]


def check_rows(path: Path, layers: Mapping[str, LayerState], norms: Mapping[str, Tensor]) -> None:
    """Raises: FormatError: norms that do not run along output rows, in a file whose other parts say they do."""
    if norm_axis(path, layers, norms) == 1:
        name = next(iter(norms))
        raise FormatError(
            f"{path} contradicts itself: its magnitudes are per output row, and its dora_scales per input column, "
            f"first in {name}."
        )


def _axis(path: Path, name: str, norm: Tensor, shape: tuple[int, ...]) -> int:
    tail = (1,) * (len(shape) - 2)
    if norm.shape == (shape[0], 1, *tail):
        return 0
    if norm.shape == (1, shape[1], *tail):
        return 1
    why = "which axis it runs along cannot be told" if norm.ndim == 1 else "it fits neither axis"
    raise FormatError(
        f"{path}: {name} has a dora_scale of shape {list(norm.shape)} on a weight of {list(shape)}, and {why}. "
        f"{[shape[0], 1, *tail]} (per output row) or {[1, shape[1], *tail]} (per input column) is expected."
    )


def by_columns(path: Path, state: AdapterState, norms: Mapping[str, Tensor], base: Base | None) -> AdapterState:
    """``W' = V * n / ||V||`` with one norm per input column, as full differences ``W' - W0``.

    LyCORIS before 3.2 and with ``wd_on_output=False``, OneTrainer by default; what A1111 computes.

    Raises:
        FormatError: the base is not given.
        AdapterError: it is another one.
    """
    if base is None:
        raise FormatError(
            f"{path} has norms per input column (OneTrainer's default, LyCORIS before 3.2), which only its base's "
            f"weights turn into something exact. Do that once: dora-diffusion export --format diff --adapter {path} "
            "--pretrained_model_name_or_path BASE --output FILE."
        )
    weights = weights_for(state, base, f"{path}, whose norms run per input column,")
    layers = {}
    for name, layer in state.layers.items():
        W0 = weights[name]
        V = W0 + layer.scale * (layer.B @ layer.A).view(W0.shape)
        length = torch.linalg.vector_norm(V.transpose(0, 1).flatten(1), dim=1).clamp_min(_TINY)
        gain = (norms[name].reshape(-1) / length).view(1, -1, *(1,) * (V.ndim - 2))
        layers[name] = full_rank(gain * V - W0)
    prints = fingerprint({name: weights[name] for name in layers})
    return AdapterState("lora", layers, base.name, prints, state.metadata)


KOHYA = KohyaFormat()
