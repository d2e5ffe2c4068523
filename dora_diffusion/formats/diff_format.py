"""Full differences ``W' - W0`` under kohya's names: the exact way out for ComfyUI and Forge, of any adapter.

    lora_unet_<path with _>.diff       the weight's own shape, (out, in) or (out, in, kh, kw)
    lora_te_<...>.diff                 the same; SDXL: lora_te1_ and lora_te2_

As large as the layers it changes; strength is linear. Read back, a difference is a LoRA layer of full rank, one of
whose factors is the identity: the same numbers, usable wherever an adapter is.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.changes import weight_change
from dora_diffusion.errors import FormatError
from dora_diffusion.formats import kohya_file
from dora_diffusion.formats import parts as of
from dora_diffusion.formats.base_files import Tensors
from dora_diffusion.formats.base_weights import weights_for
from dora_diffusion.formats.differences import full_rank
from dora_diffusion.formats.files import check_finite
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.header import read_own
from dora_diffusion.formats.names import canonical
from dora_diffusion.formats.rounding import round_to
from dora_diffusion.formats.streamed import stream_safetensors


class DiffFormat:
    """Writes and reads full differences."""

    name = "diff"
    readers = "ComfyUI, Forge, A1111, LyCORIS"
    suffix = ".safetensors"
    needs_base = True
    carries_words = False

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format."""
        return any(key.endswith(".diff") for key in keys)

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write ``state``; see ``Format.write``."""
        family = kohya_file.family(state, base)
        layout = kohya_file.layout(state, base, family)
        spelled = kohya_file.spellings(state, family, layout)
        weights = weights_for(state, base, f"The format {self.name!r}") if state.kind == "dora" else {}
        tensors = _differences(state, weights, spelled, precision)
        # No hashes: they stand before the tensors, which are made as they are written.
        stream_safetensors(path, tensors, tensors, kohya_file.header(path, state, family, layout))

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read such a file. See ``Format.read``."""
        check_finite(path, tensors)
        layout = kohya_file.read_layout(path, header)
        layers = {}
        for name, parts in of.split(path, tensors, lambda spelled: canonical(spelled, layout)).items():
            if set(parts) != {of.DIFF}:
                key = next(key for part, (key, _) in parts.items() if part != of.DIFF)
                raise FormatError(f"{path} mixes full differences with other parts ({key}); it is not one adapter.")
            key, difference = parts[of.DIFF]
            if difference.ndim not in (2, 4) or difference.numel() == 0:
                raise FormatError(
                    f"{path}: {key} is of shape {list(difference.shape)}; the difference of a Linear has two axes, of "
                    "a convolution four."
                )
            layers[name] = full_rank(difference)
        base_name, prints, metadata = read_own(path, header)
        return AdapterState("lora", layers, base_name, prints, metadata)


def _differences(
    state: AdapterState, weights: Mapping[str, Tensor], spelled: Mapping[str, str], precision: Precision
) -> Tensors:
    """``W' - W0`` by key, in the file's precision, each made when it is asked for: all of SDXL's fit no memory.

    Args:
        weights: of the base; a LoRA's differences need none.
        spelled: every layer's name in the file.
    """

    def difference(name: str) -> Tensor:
        change = weight_change(state, name, weights).view(state.layers[name].weight_shape)
        return round_to(change, precision, name)

    return Tensors({f"{key}.diff": partial(difference, name) for name, key in spelled.items()})


DIFF = DiffFormat()
