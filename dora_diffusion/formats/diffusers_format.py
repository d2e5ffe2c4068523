"""``pytorch_lora_weights.safetensors``, as diffusers and PEFT read it: the run's own file.

    unet.<path>.lora_A.weight                              (rank, in) or (rank, in, kh, kw)
    unet.<path>.lora_B.weight                              (out, rank) or (out, rank, 1, 1)
    unet.<path>.lora_magnitude_vector.weight               (out,) or (1, out, 1, 1)
    text_encoder.text_model.encoder.layers.0.<...>         the same
    text_encoder_2.text_model.encoder.layers.0.<...>       the same, SDXL's second text encoder

alpha / rank is folded into B, because no reader finds an alpha here; magnitudes end in ``.weight``, because without it
transformers 5 drops them. What the readers do not need stands in the header under ``dora_diffusion.*``.

Read are also diffusers' older spellings of the same (``.lora.down.weight``, ``attn1.processor.to_q_lora.down.weight``,
``.lora_linear_layer.down.weight``) and ai-toolkit's ``.magnitude``. Where diffusers' scripts left their
``lora_adapter_metadata``, alphas are taken from there, as diffusers does.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.errors import FormatError
from dora_diffusion.formats import parts as of
from dora_diffusion.formats.files import check_finite, write_safetensors
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.header import own_header, read_own
from dora_diffusion.formats.names import canonical
from dora_diffusion.formats.peft_config import LayerScales
from dora_diffusion.formats.rounding import folded, round_to

DOWN, UP, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector.weight"
ADAPTER_METADATA = "lora_adapter_metadata"
_DOTTED = tuple(suffix for suffix, part in of.SUFFIXES.items() if part == of.DOWN and suffix != ".lora_down.weight")


class DiffusersFormat:
    """Writes and reads the file that ``pipe.load_lora_weights(folder)`` loads."""

    name = "diffusers"
    readers = "diffusers, PEFT"
    suffix = ".safetensors"
    needs_base = False
    carries_words = False

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format."""
        return (
            any(key.endswith(_DOTTED) for key in keys)
            and not any(key.endswith(".dora_scale") for key in keys)
            and not any(".base_model." in key for key in keys)
        )

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write ``state``. Raises: FormatError: fp16 cannot hold it; MachineError."""
        tensors: dict[str, Tensor] = {}
        for name, layer in folded(state).layers.items():
            A, B, magnitude = peft_tensors(layer)
            tensors[f"{name}{DOWN}"] = round_to(A, precision, name)
            tensors[f"{name}{UP}"] = round_to(B, precision, name)
            if magnitude is not None:
                tensors[f"{name}{MAGNITUDE}"] = magnitude
        write_safetensors(path, tensors, own_header(state))

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read a file of ours, or one that diffusers' or PEFT's own scripts wrote in this layout.

        Args:
            path: of the file, for messages.
            tensors, header: what ``read_safetensors`` found in it.

        Raises:
            FormatError: it is not whole, or a layer lacks a part.
        """
        check_finite(path, tensors)
        layers = of.split(path, tensors, canonical)
        has_magnitude = of.check_all_or_none(path, layers, of.MAGNITUDE, "a magnitude")
        scales = {component: LayerScales(config) for component, config in _configs(path, header).items()}
        state = {}
        for name, parts in layers.items():
            component, _, inside = name.partition(".")
            scale = 1.0
            if scales:
                if component not in scales:
                    raise FormatError(f"{path}: its {ADAPTER_METADATA} says nothing of {component}, which has layers.")
                scales[component].check_kind(path, component, has_magnitude)
                scale = scales[component].of(inside, parts[of.DOWN][1].shape[0] if of.DOWN in parts else 1)
            layer = of.factors(path, name, parts, scale)
            of.refuse_alphas(path, parts)
            if has_magnitude:
                layer = replace(layer, magnitude=of.magnitude(path, name, parts[of.MAGNITUDE], layer))
            state[name] = layer
        base_name, fingerprint, metadata = read_own(path, header)
        return AdapterState("dora" if has_magnitude else "lora", state, base_name, fingerprint, metadata)


def peft_tensors(layer: LayerState) -> tuple[Tensor, Tensor, Tensor | None]:
    """``A``, ``B`` and the magnitude in the shapes that PEFT's layers have."""
    shape = layer.weight_shape
    if len(shape) == 2:
        return layer.A, layer.B, layer.magnitude
    magnitude = None if layer.magnitude is None else layer.magnitude.view(1, -1, 1, 1)
    return layer.A.view(layer.rank, *shape[1:]), layer.B.view(shape[0], layer.rank, 1, 1), magnitude


def _configs(path: Path, header: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Each component's ``LoraConfig`` out of diffusers' metadata, whose keys are ``<component>.<field>``."""
    text = header.get(ADAPTER_METADATA)
    if text is None:
        return {}
    try:
        flat = json.loads(text).items()
    except (ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} holds a {ADAPTER_METADATA} that cannot be read: {error}.") from None
    configs: dict[str, dict[str, Any]] = {}
    for key, value in flat:
        component, _, field = key.partition(".")
        configs.setdefault(component, {})[field] = value
    return configs


DIFFUSERS = DiffusersFormat()
