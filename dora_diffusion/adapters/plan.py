"""Which layers get an adapter: presets, regexes, and ranks by pattern."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from dora_diffusion.adapters.operators import Operator, operator_for
from dora_diffusion.config import AdapterConfig
from dora_diffusion.errors import AdapterError

logger = logging.getLogger(__name__)


class TokenRows(Protocol):
    """An embedding with tokens of its own: ``rows`` (n, dim) are their vectors, ``weight`` is the frozen rest."""

    rows: Tensor
    weight: Tensor


class LearntWord(Protocol):
    """A trigger, and its vectors by text encoder."""

    @property
    def trigger(self) -> str: ...

    @property
    def embeddings(self) -> Mapping[str, TokenRows]: ...


class Base(Protocol):
    """What injection needs from a loaded base model. ``word``: what it learnt beside its vocabulary."""

    @property
    def word(self) -> LearntWord | None: ...

    def adaptable(self) -> Mapping[str, nn.Module]:
        """Component name to model ("unet", "text_encoder", "text_encoder_2")."""

    def is_used(self, component: str, path: str) -> bool:
        """False for a layer that no output depends on."""

    def layer_name(self, component: str, path: str) -> str:
        """The canonical name of the layer at ``path`` inside a component."""

    def preset(self, component: str, name: str) -> str | None:
        """The regex behind a preset name ("attn"), or None if it is no preset."""


class Learner(Base, Protocol):
    """A base that can be given a word."""

    def learn_word(self, trigger: str, rows: Mapping[str, Tensor]) -> None:
        """Make ``trigger`` stand for tokens of its own."""


@dataclass(frozen=True)
class LayerPlan:
    """One layer to adapt: ``root.path`` is an ``nn.Linear`` or ``nn.Conv2d``."""

    name: str
    component: str
    root: nn.Module
    path: str
    module: nn.Module
    op: Operator
    rank: int
    scale: float

    def replace(self, module: nn.Module) -> None:
        """Put ``module`` where the layer is."""
        parent, _, child = self.path.rpartition(".")
        setattr(self.root.get_submodule(parent), child, module)


@dataclass(frozen=True)
class Ranks:
    """Rank and alpha of every layer: the first pattern that matches, else the global values."""

    rank: int
    alpha: float | None = None
    rank_patterns: tuple[tuple[str, float], ...] = ()
    alpha_patterns: tuple[tuple[str, float], ...] = ()

    @classmethod
    def from_config(cls, config: AdapterConfig) -> "Ranks":
        return cls(config.rank, config.alpha, _split(config.rank_pattern), _split(config.alpha_pattern))

    def of(self, name: str, limit: int) -> tuple[int, float]:
        """``(rank, scale)`` of one layer; ``limit`` is the largest rank it can have.

        Raises:
            AdapterError: a pattern asks for a rank above the limit. A global rank is clamped instead.
        """
        explicit = _first_match(self.rank_patterns, name)
        if explicit is not None and not (1 <= explicit <= limit and explicit == int(explicit)):
            raise AdapterError(f"rank_pattern gives {name} rank {explicit:g}; the layer allows 1 to {limit}.")
        rank = min(self.rank, limit) if explicit is None else int(explicit)
        alpha = _first_match(self.alpha_patterns, name)
        if alpha is None:
            alpha = self.alpha
        return rank, (1.0 if alpha is None else alpha / rank)


def plan_layers(base: Base, config: AdapterConfig) -> list[LayerPlan]:
    """Every layer that ``config`` asks for and that some output depends on, in the models' order.

    Raises:
        AdapterError: a target that matches nothing, or a rank that a layer cannot have.
    """
    ranks = Ranks.from_config(config)
    plans: list[LayerPlan] = []
    for component, root in base.adaptable().items():
        if component == "unet":
            plans += _plan_component(base, component, root, config.targets, ranks)
        elif config.train_text_encoder:
            plans += _plan_component(base, component, root, config.text_encoder_targets, ranks)
    clamped = [p for p in plans if p.rank < config.rank and _first_match(ranks.rank_patterns, p.name) is None]
    if clamped:
        logger.warning(
            "rank %d is above the size of %d layers and clamped there, first %s.",
            config.rank,
            len(clamped),
            clamped[0].name,
        )
    _check_patterns(config, plans)
    return plans


def _plan_component(base: Base, component: str, root: nn.Module, target: str, ranks: Ranks) -> list[LayerPlan]:
    regex = _compile(base.preset(component, target) or target)
    layers = [(path, module) for path, module in root.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise AdapterError(f"{component} has no Linear or Conv2d layer left to adapt; is an adapter in it already?")
    plans, unused = [], []
    for path, module in layers:
        name = base.layer_name(component, path)
        if not regex.search(name):
            continue
        if base.is_used(component, path):
            limit = min(module.weight.shape[0], module.weight[0].numel())
            rank, scale = ranks.of(name, limit)
            plans.append(LayerPlan(name, component, root, path, module, operator_for(module, name), rank, scale))
        else:
            unused.append(name)
    if unused and not plans:
        raise AdapterError(
            f"The target {target!r} matches only layers of {component} that no output of this model depends on, first "
            f"{unused[0]}: training them would change nothing. Name other layers, or use attn, attn-mlp or full."
        )
    if unused:
        logger.info("No output depends on %d layers of %s, first %s: left out.", len(unused), component, unused[0])
    if not plans:
        raise AdapterError(
            f"The target {target!r} matches none of the {len(layers)} layers of {component}, which are called like "
            f"{base.layer_name(component, layers[len(layers) // 2][0])!r}. Use attn, attn-mlp, full, or a regex over "
            "such names."
        )
    return plans


def _check_patterns(config: AdapterConfig, plans: list[LayerPlan]) -> None:
    for setting, entries in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        for pattern, _ in _split(entries):
            if not any(re.search(pattern, plan.name) for plan in plans):
                raise AdapterError(
                    f"{setting} {pattern!r} matches none of the {len(plans)} adapted layers, e.g. {plans[0].name!r}."
                )


def _split(entries: list[str]) -> tuple[tuple[str, float], ...]:
    pairs = [entry.rpartition("=") for entry in entries]
    for pattern, _, _ in pairs:
        _compile(pattern)
    return tuple((pattern, float(number)) for pattern, _, number in pairs)


def _first_match(patterns: tuple[tuple[str, float], ...], name: str) -> float | None:
    return next((number for pattern, number in patterns if re.search(pattern, name)), None)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise AdapterError(
            f"{pattern!r} is not a valid regex: {error}. Use attn, attn-mlp, full, or a regex over layer names."
        ) from None
