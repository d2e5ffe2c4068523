"""``pytorch_lora_weights.safetensors``, as diffusers and PEFT read it: the run's own file.

    unet.<path>.lora_A.weight                              (rank, in) or (rank, in, kh, kw)
    unet.<path>.lora_B.weight                              (out, rank) or (out, rank, 1, 1)
    unet.<path>.lora_magnitude_vector.weight               (out,) or (1, out, 1, 1)
    text_encoder.text_model.encoder.layers.0.<...>         the same
    text_encoder_2.text_model.encoder.layers.0.<...>       the same, SDXL's second text encoder
    dora_diffusion.lora_tokens.<text encoder>              (n, dim): vectors of the trigger's own tokens, if it has any

alpha / rank is folded into B, because no reader finds an alpha here; magnitudes end in ``.weight``, because without it
transformers 5 drops them; everything is float32. What the readers do not need stands in the header under
``dora_diffusion.*``. diffusers reads a file only if "lora" is in every key, and passes over the tokens, which
``pipe.load_textual_inversion`` takes; the README has the lines.
"""

import json
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState, Fingerprint, LayerState, NewWord
from dora_diffusion.errors import FormatError
from dora_diffusion.formats.files import check_finite, write_safetensors

DOWN, UP, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector.weight"
PREFIX = "dora_diffusion."
TOKENS = "dora_diffusion.lora_tokens."


class DiffusersFormat:
    """Writes and reads the file that ``pipe.load_lora_weights(folder)`` loads."""

    name = "diffusers"

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format."""
        return any(key.endswith(DOWN) for key in keys)

    def write(self, state: AdapterState, path: Path) -> None:
        """Write ``state``. Raises: MachineError."""
        tensors: dict[str, Tensor] = {}
        for name, layer in state.layers.items():
            tensors |= {f"{name}{suffix}": tensor for suffix, tensor in _layer_tensors(layer).items()}
        word = state.word
        tensors |= {f"{TOKENS}{component}": rows for component, rows in (word.rows if word else {}).items()}
        own = {f"{PREFIX}{key}": value for key, value in state.metadata.items()}
        own |= {
            f"{PREFIX}kind": state.kind,
            f"{PREFIX}base_name": state.base_name,
            f"{PREFIX}fingerprint": json.dumps(state.fingerprint, separators=(",", ":")),
            **({} if word is None else {f"{PREFIX}trigger": word.trigger}),
        }
        write_safetensors(path, tensors, own)

    def read(self, path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> AdapterState:
        """Read a file of ours, or one that diffusers' or PEFT's own scripts wrote in this layout.

        Args:
            path: of the file, for messages.
            tensors, header: what ``read_safetensors`` found in it.

        Raises:
            FormatError: it is not whole, or a layer lacks a part.
        """
        check_finite(path, tensors)
        names = [key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)]
        if not names:
            raise FormatError(f"{path} holds no adapter in diffusers' layout (no key ends in {DOWN}).")
        layers = {name: _read_layer(path, name, tensors) for name in names}
        metadata = {key.removeprefix(PREFIX): value for key, value in header.items() if key.startswith(PREFIX)}
        kind = "dora" if all(layer.magnitude is not None for layer in layers.values()) else "lora"
        if kind == "lora" and any(layer.magnitude is not None for layer in layers.values()):
            raise FormatError(
                f"{path} mixes layers with and without a magnitude; such a file cannot be applied as one adapter."
            )
        fingerprint = _read_fingerprint(path, metadata.pop("fingerprint", "{}"))
        base_name = metadata.pop("base_name", "")
        metadata.pop("kind", None)
        word = _read_word(path, tensors, metadata)
        return AdapterState(kind, layers, base_name, fingerprint, metadata, word)


def _layer_tensors(layer: LayerState) -> dict[str, Tensor]:
    shape = layer.weight_shape
    A, B, magnitude = layer.A, layer.B * layer.scale, layer.magnitude
    if len(shape) == 4:
        A, B = A.view(layer.rank, *shape[1:]), B.view(shape[0], layer.rank, 1, 1)
        magnitude = None if magnitude is None else magnitude.view(1, -1, 1, 1)
    tensors = {DOWN: A, UP: B}
    if magnitude is not None:
        tensors[MAGNITUDE] = magnitude
    return tensors


def _read_layer(path: Path, name: str, tensors: dict[str, Tensor]) -> LayerState:
    A, B = tensors[f"{name}{DOWN}"], tensors.get(f"{name}{UP}")
    if B is None:
        raise FormatError(f"{path}: {name} has a lora_A and no lora_B.")
    magnitude = tensors.get(f"{name}{MAGNITUDE}", tensors.get(f"{name}{MAGNITUDE.removesuffix('.weight')}"))
    if A.ndim not in (2, 4) or B.ndim != A.ndim or B.shape[1] != A.shape[0] or B.numel() != len(A) * len(B):
        raise FormatError(
            f"{path}: {name} has factors of shapes {list(A.shape)} and {list(B.shape)}, which do not multiply."
        )
    rows, rank = B.shape[0], A.shape[0]
    if magnitude is not None and magnitude.numel() != rows:
        raise FormatError(
            f"{path}: {name} has {rows} rows and a magnitude of {magnitude.numel()}; "
            "one norm per output row is expected."
        )
    flat = None if magnitude is None else magnitude.float().reshape(-1)
    return LayerState(A.float().flatten(1), B.float().reshape(rows, rank), 1.0, flat, (rows, *A.shape[1:]))


def _read_word(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> NewWord | None:
    rows = {key.removeprefix(TOKENS): value.float() for key, value in tensors.items() if key.startswith(TOKENS)}
    if not rows:
        return None
    trigger = metadata.get("trigger")
    if not trigger:
        raise FormatError(f"{path} has vectors of new tokens and does not say what word they are: its header lost it.")
    if any(value.ndim != 2 or not len(value) for value in rows.values()) or len({len(v) for v in rows.values()}) > 1:
        shapes = {component: list(value.shape) for component, value in rows.items()}
        raise FormatError(
            f"{path} has vectors of new tokens of shapes {shapes}; as many for every text encoder belong."
        )
    return NewWord(trigger, rows)


def _read_fingerprint(path: Path, text: str) -> Fingerprint:
    try:
        return {name: [float(norm) for norm in norms] for name, norms in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} holds a fingerprint of its base that cannot be read: {error}.") from None


DIFFUSERS = DiffusersFormat()
