"""Put an adapter into a loaded base model: a fresh one, or one that was trained."""

import logging
from collections.abc import Mapping
from typing import cast

import torch

from dora_diffusion.adapters.adapter import Adapter
from dora_diffusion.adapters.changes import GIVE_ITS_BASE
from dora_diffusion.adapters.fingerprint import differing_layers
from dora_diffusion.adapters.operators import operator_for
from dora_diffusion.adapters.plan import Base, LayerPlan, Learner, plan_layers
from dora_diffusion.adapters.state import AdapterState
from dora_diffusion.config import AdapterConfig
from dora_diffusion.errors import AdapterError
from dora_diffusion.registry import ADAPTERS

logger = logging.getLogger(__name__)


def inject(base: Base, config: AdapterConfig, seed: int = 0) -> Adapter:
    """Put a fresh adapter into ``base``; the model's output does not change.

    The vectors of a word that ``base`` learnt are trained with it.

    Raises:
        AdapterError: the targets match nothing, or a layer cannot have its rank.
        ConfigError: the kind is unknown.
    """
    norm_grad_full = config.norm_grad == "full"
    return Adapter(plan_layers(base, config), ADAPTERS.load(config.kind), seed, norm_grad_full, base.word)


def inject_state(base: Learner, state: AdapterState, base_name: str = "") -> Adapter:
    """Put a trained adapter, and the word it learnt, into ``base``.

    Raises:
        AdapterError: the base lacks a layer of the adapter, or has it in another shape.
    """
    modules = find_layers(base, state)
    warn_if_other_base(state, modules_weights(modules), base_name)
    plans = [
        LayerPlan(
            name,
            component,
            base.adaptable()[component],
            path,
            module,
            operator_for(module, name),
            layer.rank,
            layer.scale,
        )
        for (name, layer), (component, path, module) in zip(state.layers.items(), modules.values(), strict=True)
    ]
    if state.word is not None:
        base.learn_word(state.word.trigger, state.word.rows)
    adapter = Adapter(plans, ADAPTERS.load(state.kind), word=base.word if state.word else None)
    adapter.load_state(state)
    return adapter


def find_layers(base: Base, state: AdapterState) -> dict[str, tuple[str, str, torch.nn.Module]]:
    """(component, path, module) of every layer of ``state`` in ``base``, by name.

    Raises:
        AdapterError: a layer is missing, or has another shape; the message names both sides.
    """
    present = {
        base.layer_name(component, path): (component, path, module)
        for component, root in base.adaptable().items()
        for path, module in root.named_modules()
    }
    missing = [name for name in state.layers if name not in present]
    if missing:
        raise AdapterError(
            f"The adapter was made for {state.base_name or 'another model'}: {len(missing)} of its {len(state.layers)} "
            f"layers are not in this base, first {missing[0]}. {GIVE_ITS_BASE}"
        )
    for name, layer in state.layers.items():
        shape = tuple(present[name][2].weight.shape)
        if shape[0] != layer.B.shape[0] or torch.Size(shape[1:]).numel() != layer.A.shape[1]:
            raise AdapterError(
                f"The adapter does not fit this base: {name} is {list(shape)} here and "
                f"{layer.B.shape[0]}x{layer.A.shape[1]} in the adapter, which was made for "
                f"{state.base_name or 'another model'}. {GIVE_ITS_BASE}"
            )
    return {name: present[name] for name in state.layers}


def modules_weights(modules: dict[str, tuple[str, str, torch.nn.Module]]) -> dict[str, torch.Tensor]:
    """The frozen weights behind ``find_layers``."""
    return {name: cast(torch.Tensor, module.weight) for name, (_, _, module) in modules.items()}


def warn_if_other_base(state: AdapterState, weights: Mapping[str, torch.Tensor], base_name: str) -> bool:
    """Warn, naming both, when the fingerprint says that the adapter was trained on another checkpoint."""
    differing = differing_layers(state.fingerprint, weights)
    if differing:
        logger.warning(
            "This adapter was trained on %s, and is being used on %s, whose weights differ in %d of %d layers "
            "(first %s). DoRA's magnitudes belong to one checkpoint: expect wrong colours and contrast.",
            state.base_name or "another base",
            base_name or "this base",
            len(differing),
            len(weights),
            differing[0],
        )
    return bool(differing)
