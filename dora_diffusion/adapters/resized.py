"""An adapter of another rank, its kind kept."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dora_diffusion.adapters.changes import OnLayer, base_weight, counted, needs_base, weight_change
from dora_diffusion.adapters.lowrank import Fit, Fits, RankRule, layer_seed, low_rank
from dora_diffusion.adapters.state import AdapterState, LayerState
from dora_diffusion.registry import ADAPTERS

_TINY = 1e-12


@torch.no_grad()
def resize(
    state: AdapterState, bases: Mapping[str, Tensor], rule: RankRule, on_layer: OnLayer | None = None
) -> tuple[AdapterState, Fits]:
    """``state`` at the ranks that ``rule`` gives; the fits compare the changes ``W' - W0`` before and after.

    A LoRA keeps the best approximation of ``scale B A``. A DoRA keeps that of ``g scale B A``, the form in which the
    update enters ``W'``, and its magnitudes, which are the row norms of ``W'`` at any rank. To a larger rank nothing is
    lost: fresh rows of ``A`` meet zeros in ``B``, so that training can go on.

    Raises:
        AdapterError: a DoRA's base lacks a layer, or has it in another shape.
    """
    layers: dict[str, LayerState] = {}
    fits: dict[str, Fit] = {}
    for name in counted(state.layers, on_layer):
        layers[name] = _resized(state.layers[name], _gain(state, name, bases), rule, layer_seed(name))
        before = weight_change(state, name, bases)
        after = weight_change(replace(state, layers=layers), name, bases)
        fits[name] = Fit(layers[name].rank, _squared(before), _squared(before - after))
    told = Fits(fits)
    metadata = state.metadata | {"resize_residual": f"{told.residual:.4g}"}
    return replace(state, layers=layers, metadata=metadata), told


def _resized(layer: LayerState, gain: Tensor | None, rule: RankRule, seed: int) -> LayerState:
    limit = min(rule.rank, layer.A.shape[1], layer.B.shape[0])
    if limit >= layer.rank and rule.energy is None and rule.error is None:
        return _grown(layer, limit, seed)
    update = layer.scale * (layer.B @ layer.A)
    A, B, _ = low_rank(update if gain is None else gain[:, None] * update, rule, seed)
    return LayerState(A, B if gain is None else B / gain[:, None], 1.0, layer.magnitude, layer.weight_shape)


def _grown(layer: LayerState, rank: int, seed: int) -> LayerState:
    """More ranks and the same function: new rows of ``A`` as a fresh adapter draws them, zeros in ``B``."""
    more, columns = rank - layer.rank, layer.A.shape[1]
    fresh = torch.empty(more, columns).uniform_(
        -(columns**-0.5), columns**-0.5, generator=torch.Generator().manual_seed(seed)
    )
    B = torch.cat([layer.scale * layer.B, torch.zeros(len(layer.B), more)], dim=1)
    return LayerState(torch.cat([layer.A, fresh]), B, 1.0, layer.magnitude, layer.weight_shape)


def _gain(state: AdapterState, name: str, bases: Mapping[str, Tensor]) -> Tensor | None:
    """``g = m / ||V||`` per row, away from zero; None for a LoRA."""
    if not needs_base(state):
        return None
    layer, weight = state.layers[name], base_weight(state, name, bases)
    V = ADAPTERS.load("lora").merged_weight(weight, layer.A, layer.B, None, layer.scale).flatten(1)
    if layer.magnitude is None:
        raise ValueError("a DoRA layer has a magnitude")
    gain = layer.magnitude / torch.linalg.vector_norm(V, dim=1).clamp_min(_TINY)
    # A row that is switched off (gain 0) weighs nothing; dividing by it afterwards must stay finite.
    return torch.where(gain.abs() < 1e-6, torch.full_like(gain, 1e-6), gain)


def _squared(change: Tensor) -> float:
    return float(change.double().square().sum())
