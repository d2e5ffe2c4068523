"""PEFT's own layout, read with ``PeftModel.from_pretrained``: a folder a component, the settings beside the weights.

Rules: ``utils/save_and_load.py`` and ``tuners/lora`` of PEFT 0.21.
"""

from torch import Tensor

from dora_diffusion.formats.verify import diffusers_reader as diffusers
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, Found, Reading, left_over, refused

PREFIX = "base_model.model."


class PEFTReader:
    """``PeftModel.from_pretrained`` on every component, its weights in float32."""

    name = "peft"
    rules = "PEFT 0.21"
    stops = True

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        if not file.configs:
            return refused(file, "there is no adapter_config.json beside it")
        parts: dict[str, dict[str, str]] = {}
        for key in file.tensors:
            component, _, inner = key.partition("/")
            head, _, part = inner.removeprefix(PREFIX).partition(".lora_")
            if component.startswith("text_encoder") and not head.startswith("text_model."):
                head = f"text_model.{head}"
            layer = f"{component}.{head}"
            if inner.startswith(PREFIX) and part and layer in base.weights:
                parts.setdefault(layer, {})[f"lora_{part}".removesuffix(".weight")] = key
        layers: dict[str, Found] = {}
        for layer, keys in parts.items():
            why = self._layer(file, layer, keys, layers)
            if why:
                return refused(file, f"{layer} {why}")
        return Reading(layers, left_over(file, layers))

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        return diffusers.merge(found, weight)

    def _layer(self, file: AdapterFile, layer: str, keys: dict[str, str], layers: dict[str, Found]) -> str:
        """Add one layer. Returns why it cannot be, or nothing."""
        component, _, path = layer.partition(".")
        config = file.configs.get(component)
        if config is None:
            return "has no adapter_config.json"
        if "lora_A" not in keys or "lora_B" not in keys:
            return "lacks a factor"
        magnitude = keys.get("lora_magnitude_vector") if config.get("use_dora") else None
        if config.get("use_dora") and magnitude is None:
            return "has no magnitude, and its configuration says use_dora"
        down, up = file.tensors[keys["lora_A"]], file.tensors[keys["lora_B"]]
        taken = (keys["lora_A"], keys["lora_B"], *([magnitude] if magnitude else []))
        scale = diffusers.config_scale(config, path, len(down))
        layers[layer] = Found(taken, down, up, scale, file.tensors[magnitude] if magnitude else None)
        return ""


PEFT = PEFTReader()
