"""``merge --single_file``: a ``.safetensors`` checkpoint with the subject in its weights, as A1111 and ComfyUI load it.

Written tensor by tensor from the base's files, so that not even the base has to fit into memory.
"""

import logging
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, merged_weights, warn_if_other_base
from dora_diffusion.adapters.changes import base_weight
from dora_diffusion.formats.base_files import BaseFiles, Tensors, only
from dora_diffusion.formats.streamed import stream_safetensors
from dora_diffusion.models.schedule import RESCALED

logger = logging.getLogger(__name__)

MERGED = "dora_diffusion.merged"  # in the header: what was merged

_ARCHITECTURES = {
    ("sd1", "epsilon"): "stable-diffusion-v1",
    ("sd1", "v_prediction"): "stable-diffusion-v1",
    ("sd2", "epsilon"): "stable-diffusion-v2-512",
    ("sd2", "v_prediction"): "stable-diffusion-v2-768-v",
    ("sdxl", "epsilon"): "stable-diffusion-xl-v1-base",
    ("sdxl", "v_prediction"): "stable-diffusion-xl-v1-base",
}
# Empty tensors by which tools tell that a checkpoint of SDXL predicts v, and that its schedule was rescaled.
_V_MARK, _RESCALED_MARK = "v_pred", "ztsnr"
_MIDDLE = "unet.mid_block.resnets.0.conv1"


def write_merged_checkpoint(
    base: BaseFiles, state: AdapterState, path: Path, *, strength: float, dtype: torch.dtype, stamp: str
) -> None:
    """Write ``base`` with ``state`` merged in, in the original layout; whole or not there.

    Args:
        stamp: what was merged, for the header.

    Raises:
        AdapterError: the adapter does not fit this base.
        MachineError: the disk.
    """
    tensors = merged_checkpoint(base, state, strength, dtype)
    warn_if_other_base(state, only(base.weights, state.layers), base.name)
    if base.weights[_MIDDLE].shape[0] != 1280:  # as in every published model of these families
        logger.warning(
            "%s is smaller than the published models of its family (%s): programs that load one-file checkpoints know "
            "only those, and will not load this one. Without --single_file, a folder is written for diffusers.",
            base.name,
            base.family,
        )
    facts = {**base.schedule, **state.metadata}  # what the adapter was trained with holds
    schedule = {key: facts.get(key, "") for key in ("prediction_type", RESCALED)}
    marks = _marks(base, schedule)
    everything = ChainMap(marks, tensors)  # type: ignore[arg-type]
    stream_safetensors(path, everything, everything, _header(base, state, schedule, stamp))


def merged_checkpoint(base: BaseFiles, state: AdapterState, strength: float, dtype: torch.dtype) -> Tensors:
    """The tensors of a base's checkpoint with an adapter merged in, each made when it is asked for.

    A changed one is computed in float32 from the base's own and cast once.

    Raises:
        AdapterError: the base lacks a layer of the adapter, or has it in another shape.
    """
    layers: dict[str, list[str]] = {}
    for name in state.layers:
        base_weight(state, name, base.weights)
        layers.setdefault(base.places[name].key, []).append(name)

    def maker(key: str) -> Callable[[], Tensor]:
        names = layers.get(key, []) if strength else []
        return lambda: _merged(base, state, strength, key, names).to(dtype)

    return Tensors({key: maker(key) for key in base.checkpoint})


def _merged(base: BaseFiles, state: AdapterState, strength: float, key: str, names: list[str]) -> Tensor:
    """One tensor of the checkpoint, in float32 where the adapter changes it."""
    stored = base.checkpoint[key]
    if not names:
        return stored
    tensor = stored.to(torch.float32, copy=True)
    for name in names:
        part = base.places[name].take(tensor)
        alone = AdapterState(state.kind, {name: state.layers[name]})
        for _, weight in merged_weights(alone, {name: part.contiguous()}, strength):
            part.copy_(weight)
    return tensor


def _marks(base: BaseFiles, schedule: Mapping[str, str]) -> dict[str, Tensor]:
    wanted = {_V_MARK: schedule["prediction_type"] == "v_prediction", _RESCALED_MARK: schedule[RESCALED] == "true"}
    return {mark: torch.zeros(0) for mark, wants in wanted.items() if wants and base.family == "sdxl"}


def _header(base: BaseFiles, state: AdapterState, schedule: Mapping[str, str], stamp: str) -> dict[str, str]:
    """By Stability's model specification (modelspec 1.0.1), and our own stamp."""
    prediction = schedule["prediction_type"]
    known = {"modelspec.prediction_type": "v" if prediction == "v_prediction" else "epsilon"} if prediction else {}
    trigger = state.metadata.get("trigger")
    return {
        **known,
        **({"modelspec.trigger_phrase": trigger} if trigger else {}),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _ARCHITECTURES[base.family, prediction or "epsilon"],
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": f"{Path(base.name).stem} with {trigger or 'an adapter'}",
        MERGED: stamp,
    }
