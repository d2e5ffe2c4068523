"""A file on disk against a run: what ``dora-diffusion verify`` answers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.formats.adapters_on_disk import adapter_file
from dora_diffusion.formats.base_weights import weights_for
from dora_diffusion.formats.format import Base
from dora_diffusion.formats.verify.compare import Merged, Verification, verify_all
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, read_adapter_file
from dora_diffusion.registry import READERS


class _LastWeight(Mapping[str, Tensor]):
    """Remembers the weight asked for last: a base may read each from its files, and it is asked for twice in a row."""

    def __init__(self, weights: Mapping[str, Tensor]):
        self._weights = weights
        self._last: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if self._last is None or self._last[0] != name:
            self._last = (name, self._weights[name])
        return self._last[1]

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def open_file(path: Path) -> AdapterFile:
    """The file at ``path``, or in the run folder there. Raises: FormatError: it cannot be read or judged."""
    return read_adapter_file(adapter_file(path))


def verify_against(
    file: AdapterFile, state: AdapterState, base: Base, readers: Sequence[str] = ()
) -> list[Verification]:
    """What ``file`` gives in readers' hands against what ``state`` gives on ``base``.

    Args:
        readers: names in ``registry.READERS``; none asks all that read such a thing: PEFT folders, the others files.

    Raises:
        AdapterError: ``base`` is not the one ``state`` was trained on.
        ModelError, ConfigError: it cannot be loaded, or nobody knows its name.
    """
    weights = weights_for(state, base, "A verification")
    return judged(file, state, BaseWeights(base.family, weights), readers)


def judged(
    file: AdapterFile, state: AdapterState, base: BaseWeights, readers: Sequence[str] = ()
) -> list[Verification]:
    """``verify_against`` weights that are known to have every layer of ``state``."""
    weights = _LastWeight(base.weights)
    names = readers or [name for name in READERS if (name == "peft") == bool(file.configs)]
    chosen = [READERS.load(name) for name in names]
    return verify_all(file, chosen, BaseWeights(base.family, weights), Merged(state, weights))
