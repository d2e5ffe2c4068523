"""ComfyUI, as it is: with one norm a row it divides by the base's norm, not by that of the sum.

Rules: ``comfy/lora.py`` (which keys), ``comfy/weight_adapter/base.py`` and ``lora.py`` (the arithmetic), of 2025-10-12;
a repair of the norm was proposed upstream and open then.
"""

from collections.abc import Iterator

from torch import Tensor

from dora_diffusion.formats.verify.arithmetic import EPS, column_norms, difference, row_norms, stretched, update
from dora_diffusion.formats.verify.layer_names import flat
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, Found, MisfitError, Reading, left_over

# (up, down) after a layer's name, in the order of preference.
FACTORS = (
    (".lora_up.weight", ".lora_down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    (".lora_B", ".lora_A"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
)


class ComfyUIReader:
    """ComfyUI's "Load LoRA" at strength 1, its weights in float32."""

    name = "comfyui"
    rules = "ComfyUI 0.3.64"
    stops = False

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        return read(file, base, FACTORS)

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        return merge(found, weight)


def names(base: BaseWeights) -> Iterator[tuple[str, str]]:
    """(layer, what its keys may begin with), in the order in which later ones win."""
    for path, original in base.unet_paths.items():
        layer = f"unet.{path}"
        # diffusers' old spelling, and of diffusers' names for attentions the only one.
        old = path.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
        yield layer, flat("lora_unet", original)
        yield layer, f"diffusion_model.{original}"
        yield layer, flat("lora_unet", path)
        yield layer, flat("lycoris", path)
        yield layer, old
        yield layer, f"unet.{old}"
    for layer, (component, path) in base.text_layers.items():
        if layer == "text_encoder_2.text_projection":
            yield layer, "lora_te2_text_projection"
        if not path.startswith("text_model.encoder.layers."):
            continue
        for prefix in ("lora_te", "lora_te1") if component == "text_encoder" else ("lora_te2",):
            yield layer, flat(prefix, path)
        yield layer, f"{component}.{path}"


def read(file: AdapterFile, base: BaseWeights, factors: tuple[tuple[str, str], ...]) -> Reading:
    """All layers, by every name that each may have; a key that was looked at is not left over."""
    layers: dict[str, Found] = {}
    used: set[str] = set()
    for layer, prefix in names(base):
        found, keys = take(file, prefix, factors)
        used.update(keys)
        if found is not None:
            layers[layer] = found
    over = tuple(key for key in left_over(file, layers) if key not in used)
    by_row = sum(_is_by_row(found) for found in layers.values())
    return Reading(
        layers, over, remarks=(f"{by_row} magnitudes are divided by the norms of the base's rows",) * bool(by_row)
    )


def _is_by_row(found: Found) -> bool:
    """Whether a magnitude has as many rows as the layer, as far as the file tells."""
    if found.magnitude is None or found.up is None:
        return False
    return found.magnitude.ndim > 0 and found.magnitude.shape[0] == found.up.shape[0]


def take(file: AdapterFile, prefix: str, factors: tuple[tuple[str, str], ...]) -> tuple[Found | None, tuple[str, ...]]:
    """What the file holds of one layer under one name, and the keys this reader then counts as read."""
    tensors = file.tensors
    alpha, scale, diff = (f"{prefix}.{kind}" for kind in ("alpha", "dora_scale", "diff"))
    around = tuple(key for key in (alpha, scale) if key in tensors)
    if diff in tensors:
        return Found((diff,), diff=tensors[diff]), (*around, diff)
    for up, down in factors:
        if f"{prefix}{up}" in tensors and f"{prefix}{down}" in tensors:
            pair = (f"{prefix}{up}", f"{prefix}{down}")
            rank = tensors[pair[1]].shape[0]
            factor = float(tensors[alpha]) / rank if alpha in tensors else 1.0
            keys = (*pair, *around)
            return Found(keys, tensors[pair[1]], tensors[pair[0]], factor, tensors.get(scale)), keys
    return None, around


def merge(found: Found, weight: Tensor) -> Tensor:
    """``V * magnitude / ||W0||`` where the magnitude has as many rows as the weight, else one norm of V a column."""
    if found.diff is not None:
        return weight + difference(found, weight)
    total = weight + update(found, weight)
    if found.magnitude is None:
        return total
    if found.magnitude.ndim == 0:
        raise MisfitError("a scale without a dimension")
    by_row = found.magnitude.shape[0] == weight.shape[0]
    norms = row_norms(weight) if by_row else column_norms(total)
    return stretched(total, found.magnitude, norms + EPS)


COMFYUI = ComfyUIReader()
