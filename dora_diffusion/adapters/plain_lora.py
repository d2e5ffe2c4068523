"""Any adapter as a plain LoRA, for readers that know nothing else."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dora_diffusion.adapters.changes import OnLayer, counted, weight_change
from dora_diffusion.adapters.lowrank import Fit, Fits, RankRule, layer_seed, low_rank
from dora_diffusion.adapters.state import AdapterState, LayerState


@torch.no_grad()
def plain_lora(
    state: AdapterState, bases: Mapping[str, Tensor], rule: RankRule, on_layer: OnLayer | None = None
) -> tuple[AdapterState, Fits]:
    """The LoRA nearest to ``state``: per layer the truncated SVD of ``W' - W0``, alpha equal to the rank.

    A DoRA's change has full rank in general: what the LoRA leaves out is in the fits, and in the metadata as
    ``svd_residual``. One layer is in memory at a time.

    Args:
        bases: the base's weights by layer name; not looked at for a LoRA.

    Raises:
        AdapterError: the base lacks a layer, or has it in another shape.
    """
    layers: dict[str, LayerState] = {}
    fits: dict[str, Fit] = {}
    for name in counted(state.layers, on_layer):
        A, B, fits[name] = low_rank(weight_change(state, name, bases), rule, layer_seed(name))
        layers[name] = LayerState(A, B, 1.0, None, state.layers[name].weight_shape)
    told = Fits(fits)
    return replace(state, kind="lora", layers=layers, metadata=state.metadata | svd_facts(state.kind, told)), told


def svd_facts(kind: str, fits: Fits) -> dict[str, str]:
    """What a file remembers of how its LoRA was made."""
    return {"svd_of": kind, "svd_residual": f"{fits.residual:.4g}"}
