"""What an adapter does to the weights, ``W' - W0``: in this form adapters of any kind can be added and compared."""

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor

from dora_diffusion.adapters.state import AdapterState
from dora_diffusion.errors import AdapterError
from dora_diffusion.registry import ADAPTERS

GIVE_ITS_BASE = "Give the base it was trained on with --pretrained_model_name_or_path."

OnLayer = Callable[[int, int], None]  # layers done, layers in all


def needs_base(state: AdapterState) -> bool:
    """Whether the change depends on the base's weights; LoRA's does not."""
    return bool(ADAPTERS.load(state.kind).has_magnitude)


@torch.no_grad()
def weight_change(state: AdapterState, name: str, bases: Mapping[str, Tensor]) -> Tensor:
    """``W' - W0`` of one layer, (out, in_flat) in float32, at strength 1.

    Args:
        bases: base weights by layer name, any precision; not looked at where ``needs_base`` says no.

    Raises:
        AdapterError: the base lacks the layer, or has it in another shape.
    """
    layer = state.layers[name]
    if not needs_base(state):
        return layer.scale * (layer.B @ layer.A)
    weight = base_weight(state, name, bases)
    merged = ADAPTERS.load(state.kind).merged_weight(weight, layer.A, layer.B, layer.magnitude, layer.scale)
    return (merged - weight).flatten(1)


def base_weight(state: AdapterState, name: str, bases: Mapping[str, Tensor]) -> Tensor:
    """The base's weight of a layer, float32.

    Raises:
        AdapterError: the base lacks the layer, or has it in another shape.
    """
    layer = state.layers[name]
    known_as = state.base_name or "another model"
    if name not in bases:
        raise AdapterError(f"The adapter was made for {known_as}: this base has no {name}. {GIVE_ITS_BASE}")
    weight = bases[name]
    if weight.shape[0] != layer.B.shape[0] or weight[0].numel() != layer.A.shape[1]:
        raise AdapterError(
            f"The adapter does not fit this base: {name} is {list(weight.shape)} here and "
            f"{layer.B.shape[0]}x{layer.A.shape[1]} in the adapter, which was made for {known_as}. "
            f"{GIVE_ITS_BASE}"
        )
    return weight.float()


def weight_changes(state: AdapterState, bases: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """``weight_change`` of every layer, one at a time."""
    for name in state.layers:
        yield name, weight_change(state, name, bases)


def counted(names: Collection[str], on_layer: OnLayer | None) -> Iterator[str]:
    """``names``, telling after each one how many are done."""
    for done, name in enumerate(names, start=1):
        yield name
        if on_layer is not None:
            on_layer(done, len(names))
