"""An adapter from two whole models: the base, and what somebody's full fine-tuning made of it."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from dora_diffusion.adapters.changes import OnLayer, counted
from dora_diffusion.adapters.fingerprint import fingerprint
from dora_diffusion.adapters.lowrank import Fit, Fits, RankRule, layer_seed, low_rank
from dora_diffusion.adapters.state import AdapterState, LayerState
from dora_diffusion.errors import AdapterError

_TINY = 1e-12
_SMALL = 1e-6  # a row that tuning switched off: its gain is held away from 0, because it is divided by
_ROUNDS = 4


@torch.no_grad()
def extract(
    kind: str,
    names: Collection[str],
    bases: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    rule: RankRule,
    on_layer: OnLayer | None = None,
) -> tuple[AdapterState, Fits]:
    """A ``lora`` or ``dora`` that takes ``bases`` as near to ``tuned`` as its ranks allow; the fits say how near.

    Args:
        names: the layers to look at; those that tuning left alone are left out.
        bases, tuned: weights by layer name, any precision, read one layer at a time.

    Raises:
        AdapterError: a layer has another shape in the two models, or nothing differs.
    """
    layers: dict[str, LayerState] = {}
    fits: dict[str, Fit] = {}
    norms: dict[str, list[float]] = {}
    for name in counted(names, on_layer):
        base, goal = bases[name], tuned[name]
        if base.shape != goal.shape:
            raise AdapterError(
                f"The two models are of different kinds: {name} is {list(base.shape)} in one and {list(goal.shape)} in "
                "the other. Give a base and a model that was tuned from it."
            )
        W0, W = base.float().flatten(1), goal.float().flatten(1)
        if torch.equal(W0, W):
            continue
        fit_layer = dora_layer if kind == "dora" else lora_layer
        A, B, magnitude, fits[name] = fit_layer(W0, W, rule, layer_seed(name))
        layers[name] = LayerState(A, B, 1.0, magnitude, tuple(base.shape))
        norms |= fingerprint({name: base})
    if not layers:
        raise AdapterError("The two models have the same weights in every layer that an adapter can sit on.")
    told = Fits(fits)
    return AdapterState(kind, layers, "", norms, {"extract_residual": f"{told.residual:.4g}"}), told


def lora_layer(W0: Tensor, W: Tensor, rule: RankRule, seed: int) -> tuple[Tensor, Tensor, None, Fit]:
    """The LoRA of one layer: ``A``, ``B``, no magnitude, and the fit of ``W0 + B A`` to ``W`` (both (out, in))."""
    A, B, fit = low_rank(W - W0, rule, seed)
    return A, B, None, fit


def dora_layer(W0: Tensor, W: Tensor, rule: RankRule, seed: int) -> tuple[Tensor, Tensor, Tensor, Fit]:
    """The DoRA of one layer: ``A``, ``B``, magnitude ``(out,)``, and the fit of ``m V / ||V||`` to ``W``.

    The magnitude is the tuned row norm, so that every row of ``W'`` has it exactly. What remains is the direction:
    ``W = g V`` with ``g = m / ||V||`` unknown as long as ``V`` is, so the two are found in turns: ``g B A`` as the best
    approximation of ``W - g W0``, and ``g`` from it, starting at ``m / ||W0||``; the best turn is kept.
    """
    magnitude = torch.linalg.vector_norm(W, dim=1)
    norm = torch.linalg.vector_norm(W0, dim=1).clamp_min(_TINY)
    change = float((W - W0).double().square().sum())
    best: tuple[Tensor, Tensor, Tensor, Fit] | None = None
    for _ in range(_ROUNDS):
        gain = (magnitude / norm).clamp_min(_SMALL)[:, None]
        A, gB, fit = low_rank(W - gain * W0, rule, seed)
        B = gB / gain
        V = W0 + B @ A
        norm = torch.linalg.vector_norm(V, dim=1).clamp_min(_TINY)
        left = float(((magnitude / norm)[:, None] * V - W).double().square().sum())
        if best is None or left < best[3].squared_residual:
            best = A, B, magnitude, Fit(fit.rank, change, left)
    assert best is not None
    return best
