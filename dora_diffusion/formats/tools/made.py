"""What the tools have in common: the base they ask for, the file they write and what they say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState, warn_if_other_base
from dora_diffusion.adapters.changes import needs_base
from dora_diffusion.adapters.lowrank import Fits, RankRule
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.adapters_on_disk import load_adapter
from dora_diffusion.formats.approximation import told
from dora_diffusion.formats.base_files import only
from dora_diffusion.formats.base_weights import BaseByName
from dora_diffusion.formats.export import check_output, save
from dora_diffusion.formats.format import Precision
from dora_diffusion.registry import FORMATS


@dataclass(frozen=True)
class Made:
    """A file that was written.

    Args:
        path: of the file.
        fits: how near each layer is to what it stands for; None where nothing was approximated.
        rule: the ranks that were asked for.
        notes: whatever else the user should know, whole sentences.
        proved: the readers in whose hands the file gives the weights it should.
    """

    path: Path
    fits: Fits | None = None
    rule: RankRule | None = None
    notes: tuple[str, ...] = ()
    proved: tuple[str, ...] = ()

    def to_text(self) -> str:
        """What is told, the path last."""
        rows = [] if self.fits is None else told(self.fits, self.rule)
        proved = [f"Read back by the rules of: {', '.join(self.proved)}."] if self.proved else []
        return "\n".join([*rows, *self.notes, *proved, str(self.path)])


def check_format(format_name: str, output: Path, adapters: Sequence[Path | None] = ()) -> None:
    """``check_output`` for a format by its name. Raises: as that."""
    check_output(output, FORMATS.load(format_name), [path for path in adapters if path is not None])


def read(adapter: Path | None, given: str | None) -> AdapterState:
    """The adapter in a run folder or file; ``given`` is its base, which files with norms per input column need.

    Raises:
        ConfigError: no adapter was given.
        FormatError: it cannot be read.
    """
    if adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    return load_adapter(adapter, BaseByName(given) if given else None)


def base_of(states: Sequence[AdapterState], given: str | None) -> BaseByName:
    """The base that was given, else the first that an adapter names; not opened yet."""
    return BaseByName(given or next((state.base_name for state in states if state.base_name), ""))


def needed_weights(states: Sequence[AdapterState], base: BaseByName) -> Mapping[str, Tensor]:
    """The weights of the base, as far as any of ``states`` needs them; warns of another base than an adapter's.

    Raises:
        ConfigError: they are needed, and nobody knows which base it is.
        ModelError: it cannot be read.
    """
    needy = [state for state in states if needs_base(state)]
    if not needy:
        return {}
    weights = base.weights
    for state in needy:
        warn_if_other_base(state, only(weights, [name for name in state.layers if name in weights]), base.name)
    return weights


def write(
    state: AdapterState, format_name: str, path: Path, base: BaseByName, precision: Precision = "fp32"
) -> tuple[str, ...]:
    """Write ``state`` in a registered format; the readers in whose hands it was proved.

    Raises:
        as ``formats.export.save``.
    """
    return tuple(one.reader for one in save(state, format_name, path, base, precision) if one.is_right)
