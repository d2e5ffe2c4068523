"""Several adapters in one: the weighted sum of what each does to the weights.

That is what a mix of adapters is only for LoRAs and for this sum: two DoRAs stacked on one model, as readers stack
files, are another thing, because the second one's norm sees weights that the first has changed.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dora_diffusion.adapters.changes import OnLayer, counted, weight_change
from dora_diffusion.adapters.fingerprint import TOLERANCE
from dora_diffusion.adapters.lowrank import Fit, Fits, RankRule, layer_seed, low_rank, whole
from dora_diffusion.adapters.plain_lora import svd_facts
from dora_diffusion.adapters.state import AdapterState, Fingerprint, LayerState, NewWord
from dora_diffusion.errors import AdapterError


@torch.no_grad()
def combined_changes(
    states: Sequence[AdapterState],
    weights: Sequence[float],
    bases: Mapping[str, Tensor],
    on_layer: OnLayer | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """``sum_k weight_k (W'_k - W0)`` of every layer that some adapter has, (out, in_flat) float32, one at a time.

    Raises:
        AdapterError: two adapters have a layer in different shapes, or the base does not fit.
    """
    shapes = combined_shapes(states)
    for name in counted(shapes, on_layer):
        rows, *columns = shapes[name]
        total = torch.zeros(rows, torch.Size(columns).numel())
        for state, weight in zip(states, weights, strict=True):
            if name in state.layers:
                total.add_(weight_change(state, name, bases), alpha=weight)
        yield name, total


def combined_shapes(states: Sequence[AdapterState]) -> dict[str, tuple[int, ...]]:
    """The weight shape of every layer that some adapter has, the first adapter's layers first.

    Raises:
        AdapterError: two adapters have a layer in different shapes: they belong to different models.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for state in states:
        for name, layer in state.layers.items():
            known = shapes.setdefault(name, layer.weight_shape)
            if known != layer.weight_shape:
                raise AdapterError(
                    f"The adapters are of different models: {name} is {list(known)} in one and "
                    f"{list(layer.weight_shape)} in another. Only adapters of one base can be combined."
                )
    return shapes


def combine(
    states: Sequence[AdapterState],
    weights: Sequence[float],
    bases: Mapping[str, Tensor],
    rule: RankRule | None,
    on_layer: OnLayer | None = None,
) -> tuple[AdapterState, Fits]:
    """The LoRA nearest to the weighted sum of the changes.

    Args:
        rule: the ranks; None keeps the sum whole, as a LoRA of full rank one of whose factors is the identity.

    Raises:
        AdapterError: the adapters, or the base, do not fit together.
    """
    shapes = combined_shapes(states)
    layers: dict[str, LayerState] = {}
    fits: dict[str, Fit] = {}
    for name, change in combined_changes(states, weights, bases, on_layer):
        A, B, fits[name] = whole(change) if rule is None else low_rank(change, rule, layer_seed(name))
        layers[name] = LayerState(A, B, 1.0, None, shapes[name])
    told = Fits(fits)
    fingerprint = {name: norms for state in reversed(states) for name, norms in state.fingerprint.items()}
    triggers = ", ".join(dict.fromkeys(state.metadata["trigger"] for state in states if "trigger" in state.metadata))
    metadata = _shared_metadata(states) | svd_facts("sum", told) | ({"trigger": triggers} if triggers else {})
    base_name = next((state.base_name for state in states if state.base_name), "")
    word = next(iter(words.values())) if len(words := learnt_words(states)) == 1 else None
    return AdapterState("lora", layers, base_name, fingerprint, metadata, word), told


def learnt_words(states: Sequence[AdapterState]) -> dict[str, NewWord]:
    """The words that the adapters learnt, by trigger: a sum keeps one, and has no place for several."""
    return {state.word.trigger: state.word for state in states if state.word is not None}


def bases_differ(first: Fingerprint, second: Fingerprint) -> bool:
    """Whether two fingerprints are of different checkpoints, as far as they name the same layers."""
    return any(
        abs(a - b) > TOLERANCE * max(abs(a), abs(b)) + 1e-12
        for name in first.keys() & second.keys()
        for a, b in zip(first[name], second[name], strict=False)
    )


def _shared_metadata(states: Sequence[AdapterState]) -> dict[str, str]:
    """What all adapters say alike: the noise schedule they were trained with, among other things."""
    first, *others = (state.metadata for state in states)
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
