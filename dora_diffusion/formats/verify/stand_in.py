"""Weights in place of a base that is not at hand: a reader's arithmetic is right on them if it is right on any."""

from functools import partial

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.errors import ConfigError, ModelError
from dora_diffusion.formats import kohya_file
from dora_diffusion.formats.base_files import Tensors
from dora_diffusion.formats.format import Base
from dora_diffusion.formats.verify.reading import BaseWeights
from dora_diffusion.registry import FAMILIES


def stand_in(state: AdapterState, base: Base | None = None) -> BaseWeights:
    """Weights of the adapter's own layers. A LoRA adds the same to any, so that its are zero; a DoRA's are drawn at
    random, with rows as long as its magnitudes.

    What holds of a file that was made for one base (``comfyui``, ``dual``) does not show on these.

    Args:
        base: asked for its family where the adapter's layers do not tell.
    """
    return BaseWeights(
        _family(state, base), Tensors({name: partial(_weight, layer) for name, layer in state.layers.items()})
    )


def _weight(layer: LayerState) -> Tensor:
    if layer.magnitude is None:
        return torch.zeros(layer.weight_shape)
    drawn = torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(0)).flatten(1)
    rows = torch.nn.functional.normalize(drawn) * layer.magnitude.reshape(-1, 1)
    return rows.reshape(layer.weight_shape)


def _family(state: AdapterState, base: Base | None) -> str:
    """The adapter's, as far as it can be told: a format whose names depend on it has asked for it as it wrote."""
    try:
        return kohya_file.family(state, base)
    except (ConfigError, ModelError):
        return next(iter(FAMILIES))
