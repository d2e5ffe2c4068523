"""What an adapter file holds, as plain data: for ``inspect``, and for whoever reads its JSON."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.adapters.changes import base_weight, needs_base, weight_change
from dora_diffusion.adapters.fingerprint import differing_layers
from dora_diffusion.adapters.lowrank import effective_rank
from dora_diffusion.errors import AdapterError, ModelError
from dora_diffusion.formats.adapters_on_disk import adapter_file, format_of, load_adapter, read_tensors
from dora_diffusion.formats.base_files import BaseFiles, is_here, only, open_base
from dora_diffusion.formats.base_weights import BaseByName
from dora_diffusion.formats.layouts import axis_of, layout_of
from dora_diffusion.formats.verify import answers, read_adapter_file

STAND_IN = "weights in place of its base"
_NOTHING = 1e-6  # of the weights: what rounding alone makes of magnitudes that never moved


def facts(path: Path, base_name: str | None = None) -> dict[str, Any]:
    """Everything that is known of the adapter at ``path``, as JSON holds it; ``layers`` by name.

    Sizes are Frobenius norms. ``update_norm`` is that of ``scale B A`` and needs no base; ``change_norm`` is that of
    ``W' - W0`` and ``relative_change`` its share of ``||W0||``: None where the base is not on this machine.

    Args:
        base_name: the base to compare with; left out, the one the file names, if it can be had without a download.

    Raises:
        FormatError: there is no adapter that can be read.
        ModelError: the base that was given cannot be read.
        AdapterError: it does not fit.
    """
    file = adapter_file(path)
    state = load_adapter(path, BaseByName(base_name) if base_name else None)
    tensors, _ = read_tensors(file)
    form = format_of(file, tensors)
    base = _base(state, base_name)
    weights = {} if base is None else only(base.weights, [name for name in state.layers if name in base.weights])
    whole = base if len(weights) == len(state.layers) else None
    layers = {name: _layer_facts(state, name, weights) for name in state.layers}
    axis = axis_of(tensors)
    return {
        "file": str(file),
        "kind": state.kind,
        "layout": layout_of(form.name, tensors).value,
        "axis": None if axis is None else axis.value,
        "base": state.base_name or None,
        "compared_with": None if base is None else base.name,
        "layers_of_another_base": differing_layers(state.fingerprint, weights),
        "trigger": state.metadata.get("trigger"),
        "ranks": sorted({layer.rank for layer in state.layers.values()}),
        "alphas": sorted({facts["alpha"] for facts in layers.values()}),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}),
        "components": dict(Counter(name.partition(".")[0] for name in layers)),
        "new_tokens": None if state.word is None else {state.word.trigger: state.word.count},
        "parameters": sum(tensor.numel() for layer in state.layers.values() for tensor in _tensors(layer))
        + sum(rows.numel() for rows in (state.word.rows.values() if state.word else ())),
        "relative_change": _overall(layers),
        "untrained_layers": [name for name, layer in layers.items() if layer["dead"]],
        "readers": answers(read_adapter_file(file), state, whole, made_for_base=form.needs_base and needs_base(state)),
        "readers_judged_on": STAND_IN if whole is None else whole.name,
        "metadata": dict(sorted(state.metadata.items())),
        "layers": layers,
    }


def _base(state: AdapterState, given: str | None) -> BaseFiles | None:
    """The base that was given, else the adapter's own if it is on this machine."""
    name = given or state.base_name
    if not name or (given is None and not is_here(name)):
        return None
    try:
        base = open_base(name)
        for layer in state.layers:
            if layer in base.weights:
                base_weight(state, layer, base.weights)
    except (ModelError, AdapterError):
        if given is not None:
            raise
        return None  # what the file calls its base is something else on this machine
    return base


def _layer_facts(state: AdapterState, name: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    layer = state.layers[name]
    update = float(layer.scale * torch.linalg.matrix_norm(layer.B @ layer.A))
    change = None if needs_base(state) else update
    relative = None
    if name in weights:
        own = {name: weights[name]}  # read once
        size = float(torch.linalg.vector_norm(own[name]))
        change = float(torch.linalg.vector_norm(weight_change(state, name, own)))
        relative = change / size if size else None
    return {
        "weight_shape": list(layer.weight_shape),
        "rank": layer.rank,
        "alpha": round(layer.scale * layer.rank, 6),
        "effective_rank": round(effective_rank(layer.A, layer.B), 2),
        "update_norm": round(update, 6),
        "change_norm": None if change is None else round(change, 6),
        "relative_change": None if relative is None else float(f"{relative:.4g}"),
        "mean_magnitude": None if layer.magnitude is None else round(float(layer.magnitude.mean()), 6),
        "dead": update == 0 and (relative or 0) < _NOTHING,
    }


def _overall(layers: Mapping[str, Mapping[str, Any]]) -> float | None:
    """``||W' - W0|| / ||W0||`` over all layers as one vector; None without a base."""
    known = [(layer["change_norm"], layer["relative_change"]) for layer in layers.values() if layer["relative_change"]]
    if not known:
        return None
    change = sum(norm**2 for norm, _ in known)
    return float(f"{(change / sum((norm / relative) ** 2 for norm, relative in known)) ** 0.5:.4g}")


def _tensors(layer: LayerState) -> list[Tensor]:
    return [tensor for tensor in (layer.A, layer.B, layer.magnitude) if tensor is not None]
