"""Plain LoRA under kohya's names, for A1111, sd-scripts and whatever knows nothing else.

The file is kohya's; what makes it a format of its own is that any adapter can become one: ``export`` and ``convert``
first find the LoRA nearest to it (``adapters/plain_lora.py``) and say what that leaves out.
"""

from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.errors import FormatError
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.kohya_format import KOHYA


class LoraFormat:
    """Writes LoRAs; such files are recognised and read as kohya's."""

    name = "lora"
    readers = "A1111, Forge, ComfyUI, diffusers, sd-scripts, LyCORIS"
    suffix = ".safetensors"
    needs_base = False
    carries_words = False

    def recognises(self, keys: list[str]) -> bool:
        """Never: kohya's format does."""
        return False

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write ``state``. Raises: FormatError: it is no LoRA; and as ``KohyaFormat.write``."""
        if state.kind != "lora":
            raise FormatError(
                f"The format lora holds plain LoRAs, and this adapter is a {state.kind}. dora-diffusion convert "
                "--format lora makes the nearest LoRA of one."
            )
        KOHYA.write(state, path, base, precision)

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read such a file. See ``Format.read``."""
        return KOHYA.read(path, tensors, header, base)


LORA = LoraFormat()
