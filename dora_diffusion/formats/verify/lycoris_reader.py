"""LyCORIS 3.2 and later: one norm an output row, of the sum, as the paper has it.

Rules: ``create_network_from_weights`` of ``lycoris/kohya.py`` and ``make_module_from_state_dict`` of
``lycoris/modules/locon.py`` and ``full.py`` (3.3). It copies every tensor into a module that it has just made, so one
layer of another shape, or without an alpha, ends the loading of the whole file.
"""

import torch
from torch import Tensor

from dora_diffusion.formats.verify.arithmetic import EPS, difference, row_norms, stretched, update
from dora_diffusion.formats.verify.layer_names import flat
from dora_diffusion.formats.verify.reading import (
    AdapterFile,
    BaseWeights,
    Found,
    MisfitError,
    Reading,
    left_over,
    refused,
)


class LyCORISReader:
    """LyCORIS as sd-scripts' network module, merged at multiplier 1."""

    name = "lycoris"
    rules = "LyCORIS 3.3"
    stops = True

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        layers = {}
        for layer, prefix in kohya_names(base):
            found, wrong = _take(file, prefix)
            if wrong:
                return refused(file, f"{prefix} {wrong}")
            if found is not None:
                layers[layer] = found
        return Reading(layers, left_over(file, layers))

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        if found.diff is not None:
            return weight + difference(found, weight)
        _check_copies(found, tuple(weight.shape))
        total = weight + update(found, weight)
        if found.magnitude is None:
            return total
        return stretched(total, found.magnitude, row_norms(total) + EPS)


def kohya_names(base: BaseWeights) -> list[tuple[str, str]]:
    """(layer, name) in sd-scripts: it has diffusers' UNet for SD 1.x and 2.x and the original one for SDXL."""
    names = []
    for path, original in base.unet_paths.items():
        names.append((f"unet.{path}", flat("lora_unet", original if base.family == "sdxl" else path)))
    for layer, (component, path) in base.text_layers.items():
        prefix = "lora_te"
        if base.family == "sdxl":
            prefix = "lora_te1" if component == "text_encoder" else "lora_te2"
        names.append((layer, flat(prefix, path)))
    return names


def _take(file: AdapterFile, prefix: str) -> tuple[Found | None, str]:
    """What the file has of one layer, and what it lacks."""
    keys = {part: f"{prefix}.{part}" for part in ("lora_up.weight", "lora_down.weight", "alpha", "dora_scale", "diff")}
    here = {part: file.tensors[key] for part, key in keys.items() if key in file.tensors}
    if "lora_up.weight" in here:
        for part in ("lora_down.weight", "alpha"):
            if part not in here:
                return None, f"has no {part}"
        up, down, alpha = here["lora_up.weight"], here["lora_down.weight"], float(here["alpha"])
        # Alpha 0 means "no scaling" there.
        scale = alpha / down.shape[0] if alpha else 1.0
        taken = tuple(keys[part] for part in here if part != "diff")
        return Found(taken, down, up, scale, here.get("dora_scale")), ""
    if "diff" in here:
        return Found((keys["diff"],), diff=here["diff"]), ""
    return None, ""


def _check_copies(found: Found, shape: tuple[int, ...]) -> None:
    """Raises: MisfitError: a tensor cannot be copied into the module that is made for this layer."""
    assert found.down is not None and found.up is not None
    rank, ones = found.down.shape[0], [1] * (len(shape) - 2)
    expected = {
        "lora_down": (found.down, (rank, *shape[1:])),
        "lora_up": (found.up, (shape[0], rank, *ones)),
        "dora_scale": (found.magnitude, (shape[0], 1, *ones)),
    }
    for part, (tensor, wanted) in expected.items():
        if tensor is not None and not _copies(tensor, wanted):
            raise MisfitError(f"a {part} {list(tensor.shape)} where {list(wanted)} is wanted")


def _copies(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether ``tensor`` can be copied into that shape, as torch broadcasts."""
    try:
        return torch.broadcast_shapes(tensor.shape, shape) == torch.Size(shape)
    except RuntimeError:
        return False


LYCORIS = LyCORISReader()
