"""One file for diffusers and ComfyUI, exact in each: the older diffusers spelling, which both know.

    attention of the UNet, X = unet.<...>.attn1.processor.to_q  (to_out.0: processor.to_out)
        X_lora.down.weight, X_lora.up.weight, X.lora_magnitude_vector.weight, X.dora_scale
    the rest of the UNet, X = unet.<path>
        X.lora.down.weight, X.lora.up.weight, X.lora_magnitude_vector.weight, X.dora_scale
    text encoders, X = text_encoder[_2].text_model.encoder.layers.0.<...>
        X.lora_A.weight, X.lora_B.weight, X.lora_magnitude_vector.weight, X.dora_scale

diffusers drops every ``dora_scale`` with a warning and reads the magnitude; ComfyUI reads ``dora_scale``, which is
compensated for its norm (see ``comfyui_format``), and logs that it does not know the magnitude. Forge would read it
too, but takes a file of which more than twelve keys match nothing for another model's. alpha / rank is folded into
``up``. No key of the UNet may hold "lora_A": diffusers decides by the first one how to read all of them.
No ``.alpha``: diffusers would look for kohya's names.
"""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.formats import kohya_file
from dora_diffusion.formats import parts as of
from dora_diffusion.formats.base_weights import weights_for
from dora_diffusion.formats.comfyui_format import compensated
from dora_diffusion.formats.diffusers_format import peft_tensors
from dora_diffusion.formats.files import check_finite, write_safetensors
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.header import hashes, modelspec_header, network_header, own_header, read_own
from dora_diffusion.formats.kohya_format import check_rows
from dora_diffusion.formats.names import canonical, old_diffusers
from dora_diffusion.formats.rounding import folded, round_to, rounded
from dora_diffusion.formats.words import own_tensors


class DualFormat:
    """Writes and reads files for diffusers and ComfyUI alike."""

    name = "dual"
    readers = "diffusers, ComfyUI"
    suffix = ".safetensors"
    needs_base = True
    carries_words = True

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format; a LoRA's are diffusers' own."""
        return any(".lora_magnitude_vector" in key for key in keys) and any(key.endswith(".dora_scale") for key in keys)

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write ``state``; see ``Format.write``."""
        family = kohya_file.family(state, base)
        tensors = own_tensors(state)
        in_file = rounded(folded(state), precision)
        weights = weights_for(state, base, f"The format {self.name!r}") if state.kind == "dora" else {}
        for name, layer in in_file.layers.items():
            key, down, up = _spelled(name)
            A, B, magnitude = peft_tensors(layer)
            tensors[f"{key}{down}"] = round_to(A, precision, name)
            tensors[f"{key}{up}"] = round_to(B, precision, name)
            if magnitude is not None:
                tensors[f"{key}.lora_magnitude_vector.weight"] = magnitude
                tensors[f"{key}.dora_scale"] = compensated(name, layer, weights[name])
        header = own_header(state) | network_header(in_file, path, family)
        header |= modelspec_header(state, path, family, "diffusers")
        write_safetensors(path, tensors, header | hashes(tensors, header))

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read such a file: the magnitudes say it all. See ``Format.read``."""
        check_finite(path, tensors)
        layers = of.split(path, tensors, canonical)
        of.check_all_or_none(path, layers, of.MAGNITUDE, "a magnitude")
        of.check_all_or_none(path, layers, of.SCALE, "a dora_scale")
        state = {}
        for name, parts in layers.items():
            of.refuse_alphas(path, parts)
            layer = of.factors(path, name, parts, 1.0)
            state[name] = replace(layer, magnitude=of.magnitude(path, name, parts[of.MAGNITUDE], layer))
        check_rows(path, state, {name: parts[of.SCALE][1] for name, parts in layers.items()})
        base_name, fingerprint, metadata = read_own(path, header)
        return AdapterState("dora", state, base_name, fingerprint, metadata)


def _spelled(name: str) -> tuple[str, str, str]:
    """(key, suffix of A, suffix of B)."""
    if not name.startswith("unet."):
        return name, ".lora_A.weight", ".lora_B.weight"
    key = old_diffusers(name)
    mark = "_lora" if ".processor." in key else ".lora"
    return key, f"{mark}.down.weight", f"{mark}.up.weight"


DUAL = DualFormat()
