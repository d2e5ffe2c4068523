"""What a file format is, and what its writer is told of the base model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.config.use import Precision


class Base(Protocol):
    """The base model an adapter belongs to, as formats see it. Nothing is loaded before something is asked for.

    ``name`` is what the user calls it, ``family`` a name in ``registry.FAMILIES``; ``weights`` the frozen weights of
    every Linear and Conv2d by canonical layer name ("unet.<diffusers path>", "text_encoder.text_model.<...>"), each
    made float32 on the CPU as it is read.

    Raises:
        ModelError: it cannot be loaded (on reading ``family`` or ``weights``).
    """

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

    @property
    def weights(self) -> Mapping[str, Tensor]: ...


class Format(Protocol):
    """``AdapterState`` from and to a file; stateless.

    What is promised: reading back a file written in fp32 gives merged weights within 1e-6 of ``||W'||`` and 1e-4 of
    ``||W' - W0||``; in fp16 and bf16 within ``rounding.BOUNDS`` of ``||W' - W0||``. Magnitudes, scales and alphas are
    float32 in every precision: they multiply the whole base weight.

    Args:
        name: as registered.
        readers: who reads such a file right, in words.
        suffix: of the file's name; empty where the format is a folder.
        needs_base: its writer reads ``base.weights``. Without it, ``write`` asks at most for ``base.family``, and only
            where the adapter's own layers do not tell.
        carries_words: it has a place for a learnt trigger word's embedding rows.
    """

    name: str
    readers: str
    suffix: str
    needs_base: bool
    carries_words: bool

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format. At most one registered format says so."""

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write ``state`` whole, or nothing.

        Raises:
            FormatError: the format cannot carry this adapter in this precision.
            AdapterError: ``base`` is not the one the adapter was trained on.
            ConfigError: a base is needed, and was not given.
            MachineError: the disk.
        """

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read such a file, ours or another tool's: kind, axis and alphas are found from its content.

        Args:
            path: of the file, for messages.
            tensors, header: what ``read_safetensors`` found in it.
            base: only what cannot be told without frozen weights asks for it (norms per input column).

        Raises:
            FormatError: it is not whole, contradicts itself, or is of a kind that cannot be read exactly.
        """
