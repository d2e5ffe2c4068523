"""A file on disk against a run: what ``dora-diffusion verify`` answers."""

from pathlib import Path

from dora_diffusion.adapters import AdapterState
from dora_diffusion.formats.adapters_on_disk import adapter_file
from dora_diffusion.formats.base_weights import weights_for
from dora_diffusion.formats.format import Base
from dora_diffusion.formats.verify.compare import Merged, Verification, verify
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, read_adapter_file
from dora_diffusion.registry import READERS


def open_file(path: Path) -> AdapterFile:
    """The file at ``path``, or in the run folder there. Raises: FormatError: it cannot be read or judged."""
    return read_adapter_file(adapter_file(path))


def verify_against(file: AdapterFile, state: AdapterState, base: Base, reader: str | None) -> list[Verification]:
    """What ``file`` gives in one reader's hands, or in everybody's, against what ``state`` gives on ``base``.

    Args:
        reader: a name in ``registry.READERS``; None asks all that read such a thing: PEFT folders, the others files.

    Raises:
        AdapterError: ``base`` is not the one ``state`` was trained on.
        ModelError, ConfigError: it cannot be loaded, or nobody knows its name.
    """
    weights = BaseWeights(base.family, weights_for(state, base, "A verification"))
    expected = Merged(state, weights.weights)
    names = [name for name in READERS if (name == "peft") == bool(file.configs)] if reader is None else [reader]
    return [verify(file, READERS.load(name), weights, expected) for name in names]
