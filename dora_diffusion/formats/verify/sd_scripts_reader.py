"""kohya's sd-scripts without LyCORIS: plain LoRA on transformers, resnets and samplers, blind to a DoRA's scale.

Rules: ``create_network_from_weights`` and ``merge_to`` of ``networks/lora.py`` (2026-02). Layers outside those modules
(``conv_in``, ``conv_out``, the embeddings of time and size, a text encoder's projection) are none of its targets.
"""

from torch import Tensor

from dora_diffusion.formats.verify.arithmetic import update
from dora_diffusion.formats.verify.layer_names import flat
from dora_diffusion.formats.verify.lycoris_reader import kohya_names
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, Found, Reading, left_over

_OUTSIDE = ("conv_in", "conv_out", "time_embedding.", "add_embedding.", "text_encoder_2.text_projection")


class SdScriptsReader:
    """sd-scripts' ``networks.lora``, merged at multiplier 1."""

    name = "sd_scripts"
    rules = "sd-scripts 0.9, 2026-02-16"
    stops = True

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        layers = {}
        for layer, prefix in _targets(base):
            up, down, alpha = (f"{prefix}.{part}" for part in ("lora_up.weight", "lora_down.weight", "alpha"))
            if down not in file.tensors or up not in file.tensors:
                continue
            rank = file.tensors[down].shape[0]
            value = float(file.tensors[alpha]) if alpha in file.tensors else 0.0
            keys = tuple(key for key in (up, down, alpha) if key in file.tensors)
            # Alpha 0, like none at all, means "no scaling".
            layers[layer] = Found(keys, file.tensors[down], file.tensors[up], value / rank if value else 1.0)
        scales = [key for key in file.tensors if key.endswith(".dora_scale")]
        remarks = (f"{len(scales)} DoRA scales are not looked at: it runs the file as plain LoRA",) if scales else ()
        return Reading(layers, left_over(file, layers), remarks=remarks)

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        return weight + update(found, weight)


def _targets(base: BaseWeights) -> list[tuple[str, str]]:
    """(layer, name) of what it has modules for; SDXL's diffusers names are turned into the original ones first."""
    names = kohya_names(base)
    if base.family == "sdxl":
        blocks = [path for path in base.unet_paths if not path.startswith(_OUTSIDE)]
        names += [(f"unet.{path}", flat("lora_unet", path)) for path in blocks]
    return [(layer, name) for layer, name in names if not layer.removeprefix("unet.").startswith(_OUTSIDE)]


SD_SCRIPTS = SdScriptsReader()
