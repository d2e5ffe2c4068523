"""kohya's layout for ComfyUI and Forge as they are: they divide a norm per output row by ``||W0||``, not by ``||V||``.

(comfy/weight_adapter/base.py and backend/patcher/lora.py, ``weight_decompose``.) Their arithmetic is undone beforehand:

    dora_scale = m * (||W0|| + eps) / ||V||    so that    V * dora_scale / (||W0|| + eps) = V * m / ||V|| = W'

with float32's eps, which they add. Needs the base; is right on that base alone, and wrong in LyCORIS and in any reader
that divides by ``||V||``. The magnitudes themselves stand in one tensor of ours, ``dora_diffusion.magnitude``, in the
order of the sorted canonical names, so that the file can be read back without the base; ComfyUI logs that it does not
know it. The header says ``dora_diffusion.dora_norm: base``. A LoRA needs none of this and is kohya's file.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.errors import FormatError
from dora_diffusion.formats import kohya_file
from dora_diffusion.formats.base_weights import weights_for
from dora_diffusion.formats.files import check_finite
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.header import PREFIX, read_own
from dora_diffusion.formats.kohya_format import check_rows, read_layers
from dora_diffusion.formats.rounding import rounded

MAGNITUDE = f"{PREFIX}magnitude"
_EPS = float(torch.finfo(torch.float32).eps)
_TINY = 1e-12


class ComfyUIFormat:
    """Writes and reads files compensated for ComfyUI's and Forge's norm."""

    name = "comfyui"
    readers = "ComfyUI, Forge; LoRA: every tool"
    suffix = ".safetensors"
    needs_base = True
    carries_words = False

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format."""
        return MAGNITUDE in keys

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write ``state``; see ``Format.write``."""
        family = kohya_file.family(state, base)
        layout = kohya_file.layout(state, base, family)
        spelled = kohya_file.spellings(state, family, layout)
        state = kohya_file.with_one_alpha(state)
        tensors = kohya_file.factor_tensors(state, spelled, precision)
        if state.kind == "dora":
            weights = weights_for(state, base, f"The format {self.name!r}")
            for name, layer in rounded(state, precision).layers.items():
                tensors[f"{spelled[name]}.dora_scale"] = compensated(name, layer, weights[name])
            tensors[MAGNITUDE] = torch.cat([magnitude_of(name, state.layers[name]) for name in sorted(state.layers)])
        kohya_file.write(path, tensors, state, family, layout, {f"{PREFIX}dora_norm": "base"})

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read such a file. See ``Format.read``."""
        check_finite(path, tensors)
        rest = {key: tensor for key, tensor in tensors.items() if key != MAGNITUDE}
        read = read_layers(path, rest, header)
        layers = {name: layer for name, (layer, _) in sorted(read.items())}
        scales = {name: scale for name, (_, scale) in read.items() if scale is not None}
        rows, magnitudes = [layer.weight_shape[0] for layer in layers.values()], tensors[MAGNITUDE].float()
        if len(scales) < len(layers) or magnitudes.shape != (sum(rows),):
            raise FormatError(
                f"{path} is not whole: its {len(layers)} layers have {sum(rows)} rows, and its {MAGNITUDE} is of shape "
                f"{list(magnitudes.shape)}."
            )
        check_rows(path, layers, scales)
        pieces = zip(layers.items(), magnitudes.split(rows), strict=True)
        state = {name: replace(layer, magnitude=piece.clone()) for (name, layer), piece in pieces}
        base_name, prints, metadata = read_own(path, header)
        return AdapterState("dora", state, base_name, prints, metadata)


def magnitude_of(name: str, layer: LayerState) -> Tensor:
    """Raises: FormatError: a DoRA's layer has none."""
    if layer.magnitude is None:
        raise FormatError(f"{name} has no magnitude, and the adapter is a DoRA; it cannot be written.")
    return layer.magnitude


def compensated(name: str, layer: LayerState, weight: Tensor) -> Tensor:
    """``m * (||W0|| + eps) / ||V||``, (out, 1) or (out, 1, 1, 1), from factors as they lie in the file.

    Sums of squares are taken in float64: the two norms nearly cancel.
    """
    W0 = weight.flatten(1)
    V = torch.addmm(W0, layer.B, layer.A, alpha=layer.scale)
    base_norm, norm = (torch.linalg.vector_norm(W, dim=1, dtype=torch.float64) for W in (W0, V))
    scale = magnitude_of(name, layer).double() * (base_norm + _EPS) / norm.clamp_min(_TINY)
    return kohya_file.row_shaped(scale.float(), layer.weight_shape)


COMFYUI = ComfyUIFormat()
