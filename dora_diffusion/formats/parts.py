"""From tensors by key to layers by canonical name: what every reader does first, and what it refuses.

A key is a layer's name in some spelling and a part's suffix. Nothing is left over: a part that is not known here would
change the picture, so the file that holds it is refused by what it is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import LayerState
from dora_diffusion.errors import FormatError
from dora_diffusion.formats.names import word_of

DOWN, UP, ALPHA, SCALE, MAGNITUDE, DIFF = "down", "up", "alpha", "dora_scale", "magnitude", "diff"

# Longer ones first where one ends with another.
SUFFIXES = {
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora_down.weight": DOWN,
    ".lora_up.weight": UP,
    "_lora.down.weight": DOWN,
    "_lora.up.weight": UP,
    ".lora.down.weight": DOWN,
    ".lora.up.weight": UP,
    ".lora_linear_layer.down.weight": DOWN,
    ".lora_linear_layer.up.weight": UP,
    ".lora_magnitude_vector.weight": MAGNITUDE,
    ".lora_magnitude_vector": MAGNITUDE,
    ".magnitude": MAGNITUDE,
    ".alpha": ALPHA,
    ".dora_scale": SCALE,
    ".diff": DIFF,
}
# Parts of kinds that are no LoRA, no DoRA and no full change of a weight.
_OTHER_KINDS = {
    ".hada_": "a LoHa",
    ".lokr_": "a LoKr",
    ".oft_": "an OFT",
    ".boft_": "a BOFT",
    ".lora_mid": "a LoCon with a Tucker core",
    ".a1.": "a GLoRA",
    ".on_input": "an (IA)^3",
    ".diff_b": "a change of biases",
    ".w_norm": "a change of normalisations",
    ".b_norm": "a change of normalisations",
    ".lora_embedding_": "an adapter of embeddings",
    ".lora_A.bias": "an adapter with biases",
    ".lora_B.bias": "an adapter with biases",
    ".lora_up.bias": "an adapter with biases",
}
_FOREIGN_MODELS = ("transformer.", "lora_transformer_", "diffusion_model.double_blocks", "lora_te3_", "lora_prior_")

Part = tuple[str, Tensor]  # the key, and what it holds
Parts = Mapping[str, Part]
Spell = Callable[[str], str | None]


def part_of(key: str) -> tuple[str, str] | None:
    """(the layer as it is spelled, the part) behind a key; None for a part that is not known."""
    return next(((key.removesuffix(end), part) for end, part in SUFFIXES.items() if key.endswith(end)), None)


def split(path: Path, tensors: Mapping[str, Tensor], canonical: Spell) -> dict[str, Parts]:
    """Every layer's parts, by canonical name in the file's order.

    Args:
        canonical: a layer's canonical name from its spelling in this file.

    Raises:
        FormatError: a key of no known kind, a layer of another model, or the same part of a layer twice.
    """
    layers: dict[str, dict[str, Part]] = {}
    for key, tensor in tensors.items():
        if word_of(key) is not None:
            raise FormatError(
                f"{path} carries a learnt word ({key}), which this format cannot take along; without it the adapter "
                "draws something else."
            )
        found = part_of(key)
        if found is None:
            raise FormatError(f"{path} cannot be read: {_unknown(key)}.")
        spelled, part = found
        name = canonical(spelled)
        if name is None:
            raise FormatError(f"{path} cannot be read: {_no_layer(spelled)}.")
        if not tensor.is_floating_point():
            raise FormatError(f"{path}: {key} holds {str(tensor.dtype).removeprefix('torch.')} values, not numbers.")
        parts = layers.setdefault(name, {})
        if part in parts:
            raise FormatError(f"{path} holds {name} twice: as {parts[part][0]} and as {key}.")
        parts[part] = (key, tensor)
    return layers  # type: ignore[return-value]


def _unknown(key: str) -> str:
    kind = next((kind for part, kind in _OTHER_KINDS.items() if part in key), None)
    if kind is not None:
        return f"{key} belongs to {kind}; LoRA, DoRA and full differences are read"
    return f"{key} is no part of a LoRA or DoRA"


def _no_layer(spelled: str) -> str:
    if spelled.startswith(_FOREIGN_MODELS):
        return f"{spelled} is a layer of another kind of model; adapters of Stable Diffusion 1.x, 2.x and XL are read"
    return f"{spelled} is no layer of Stable Diffusion 1.x, 2.x or XL"


def factors(path: Path, name: str, parts: Parts, scale: float) -> LayerState:
    """One layer's ``A`` and ``B`` in float32, without a magnitude.

    Raises:
        FormatError: one is missing, they do not multiply, or a full difference stands beside them.
    """
    if DIFF in parts:
        raise FormatError(f"{path} mixes full differences with other parts ({parts[DIFF][0]}); it is not one adapter.")
    if DOWN not in parts or UP not in parts:
        have, lack = (DOWN, UP) if DOWN in parts else (UP, DOWN)
        if have not in parts:
            key, _ = next(iter(parts.values()))
            raise FormatError(f"{path}: {name} has no factors, only {key}.")
        raise FormatError(
            f"{path}: {name} has a {_called(parts[have][0])} and no {_counterpart(parts[have][0], lack)}."
        )
    A, B = parts[DOWN][1], parts[UP][1]
    if A.ndim not in (2, 4) or B.ndim != A.ndim or B.shape[1] != A.shape[0] or B.numel() != len(A) * len(B):
        raise FormatError(
            f"{path}: {name} has factors of shapes {list(A.shape)} and {list(B.shape)}, which do not multiply."
        )
    if A.numel() == 0 or B.numel() == 0:
        raise FormatError(f"{path}: {name} has factors of rank {len(A)}, without a number in them.")
    rows, rank = B.shape[0], A.shape[0]
    return LayerState(A.float().flatten(1), B.float().reshape(rows, rank), scale, None, (rows, *A.shape[1:]))


def _called(key: str) -> str:
    """``lora_A`` of a key that ends in ``.lora_A.weight``."""
    suffix = next(end for end in SUFFIXES if key.endswith(end))
    return suffix.strip("._").removesuffix(".weight")


def _counterpart(key: str, part: str) -> str:
    ends = list(SUFFIXES)
    at = ends.index(next(end for end in ends if key.endswith(end)))
    return _called(ends[at + (1 if part == UP else -1)])


def magnitude(path: Path, name: str, part: Part, layer: LayerState) -> Tensor:
    """A magnitude of one norm per output row, ``(rows,)``; PEFT writes it as (rows,) or (1, rows, 1, 1).

    Raises:
        FormatError: another number of norms.
    """
    rows = layer.weight_shape[0]
    if part[1].numel() != rows:
        raise FormatError(
            f"{path}: {name} has {rows} rows and a magnitude of {part[1].numel()}; one norm per output row is expected."
        )
    return part[1].float().reshape(-1)


def refuse_alphas(path: Path, parts: Parts) -> None:
    """Raises: FormatError: there is an alpha, in a layout whose readers find none."""
    if ALPHA in parts:
        raise FormatError(
            f"{path} has {parts[ALPHA][0]} among keys of a layout without alphas: some readers would use it and some "
            "would not."
        )


def check_all_or_none(path: Path, layers: Mapping[str, Parts], part: str, called: str) -> bool:
    """Whether the layers have ``part``.

    Raises:
        FormatError: some do and some do not.
    """
    have = [name for name, parts in layers.items() if part in parts]
    if have and len(have) < len(layers):
        lacking = next(name for name in layers if name not in set(have))
        raise FormatError(
            f"{path} mixes layers with and without {called}, first without: {lacking}; such a file cannot be applied "
            "as one adapter."
        )
    return bool(have)
