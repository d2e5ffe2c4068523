"""Trained-looking adapters of small models of every family, and what their layers become merged."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from bases import perturb
from small_models import small_pipeline
from torch import Tensor

from dora_diffusion.adapters import AdapterState, inject, merged_weights
from dora_diffusion.config import AdapterConfig
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.models import BaseModel
from dora_diffusion.registry import FAMILIES


@dataclass(frozen=True)
class Case:
    """An adapter, its base, and by layer name the base's and the merged weights."""

    state: AdapterState
    base: LoadedBase
    bases: dict[str, Tensor]
    merged: dict[str, Tensor]

    def errors(self, other: AdapterState) -> tuple[float, float]:
        """The worst layer's distance of ``other``'s merged weight, against ``||W'||`` and ``||W' - W0||``."""
        assert other.layers.keys() == self.state.layers.keys()
        return self.weight_errors(dict(merged_weights(other, self.bases)))

    def weight_errors(self, weights: dict[str, Tensor]) -> tuple[float, float]:
        """The same of merged weights that a reader made."""
        assert weights.keys() == self.merged.keys()
        off = {name: (weights[name].float().view_as(W) - W).norm() for name, W in self.merged.items()}
        of_weight = max(float(off[name] / W.norm()) for name, W in self.merged.items())
        return of_weight, max(float(off[name] / (W - self.bases[name]).norm()) for name, W in self.merged.items())


@lru_cache
def small_base(family: str) -> BaseModel:
    """A small model with random weights. Shared: leave it as it is."""
    return BaseModel(f"small-{family}", FAMILIES.load(family), small_pipeline(family))


@lru_cache
def case(family: str, kind: str = "dora", targets: str = "full", texts: bool = True) -> Case:
    """An adapter over ``targets``, with layers of two ranks and two alphas, every parameter moved."""
    base = small_base(family)
    config = AdapterConfig(
        kind=kind,
        rank=2,
        alpha=3,
        rank_pattern=["attn2.to_k=3"],
        alpha_pattern=["attn2.to_v=1"],
        targets=targets,
        train_text_encoder=texts,
        text_encoder_targets="attn-mlp" if targets != "attn" else "attn",
    )
    adapter = perturb(inject(base, config), 0.1)
    metadata = {"trigger": "sks", "instance_prompt": "a photo of sks dog", "resolution": "64", "step": "7"}
    state = adapter.state(base.name, metadata | base.schedule_facts())
    adapter.eject()
    loaded = LoadedBase(base)
    bases = {name: loaded.weights[name].clone() for name in state.layers}
    return Case(state, loaded, bases, dict(merged_weights(state, bases)))


def all_parts(state: AdapterState) -> list[Tensor]:
    """Every tensor of an adapter."""
    parts = (part for layer in state.layers.values() for part in (layer.A, layer.B, layer.magnitude))
    return [part for part in parts if torch.is_tensor(part)]
