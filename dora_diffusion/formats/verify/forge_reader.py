"""Stable Diffusion WebUI Forge: ComfyUI's keys and arithmetic, and a guard of its own.

Rules: ``backend/patcher/lora.py``, ``packages_3rdparty/comfyui_lora_collection/lora.py`` and
``extensions-builtin/sd_forge_lora/networks.py`` of 2025-06-26. The guard, ``load_lora_for_models``: a file of which
more than twelve keys match nothing is taken for one of another model and not loaded at all.
"""

from torch import Tensor

from dora_diffusion.formats.verify import comfyui_reader as comfyui
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, Found, Reading, refused

MOST_UNMATCHED = 12
FACTORS = tuple(pair for pair in comfyui.FACTORS if pair[0] not in (".lora_B", ".lora_B.default.weight"))


class ForgeReader:
    """Forge's LoRA in a prompt at strength 1, its weights in float32."""

    name = "forge"
    rules = "Forge f2.0.1v1.10.1, 2025-06-26"
    stops = True

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        reading = comfyui.read(file, base, FACTORS)
        over = reading.left_over
        if len(over) > MOST_UNMATCHED:
            why = f"{len(over)} keys match no layer, first {over[0]}; with more than {MOST_UNMATCHED} it loads nothing"
            return refused(file, why)
        return reading

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        return comfyui.merge(found, weight)


FORGE = ForgeReader()
