"""What the tools have in common: the base they ask for, the ranks they are given, the file they write and what they say
of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState, warn_if_other_base
from dora_diffusion.adapters.changes import needs_base
from dora_diffusion.adapters.lowrank import Fits, RankRule
from dora_diffusion.config.tools import Ranks
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats.base_files import only, open_base
from dora_diffusion.registry import FORMATS

DEFAULT_RANK = 64  # of a plain LoRA; chosen by scripts/bench_lowrank.py
LARGEST_RANK = 128  # where energy or error choose


@dataclass(frozen=True)
class Made:
    """A file that was written.

    Args:
        path: of the file.
        fits: how near each layer is to what it stands for; None where nothing was approximated.
        rule: the ranks that were asked for.
        notes: whatever else the user should know, whole sentences.
    """

    path: Path
    fits: Fits | None = None
    rule: RankRule | None = None
    notes: tuple[str, ...] = ()

    def to_text(self) -> str:
        """What is told, the path last."""
        return "\n".join([*self._told(), *self.notes, str(self.path)])

    def _told(self) -> list[str]:
        if self.fits is None or not self.fits.layers:
            return []
        name, worst = self.fits.worst
        ranks = sorted(fit.rank for fit in self.fits.layers.values())
        span = f"{ranks[0]}" if ranks[0] == ranks[-1] else f"{ranks[0]} to {ranks[-1]}"
        rows = [
            f"{len(ranks)} layers of rank {span}; of the change of the weights {_percent(self.fits.residual)} is left "
            f"out (the worst layer: {_percent(worst)}, {name})"
        ]
        if self.rule is not None and (short := self.fits.short_of(self.rule)):
            rows.append(
                f"{len(short)} layers keep less than was asked for at the largest rank, {self.rule.rank}, first "
                f"{short[0]}; give a larger --rank"
            )
        return rows


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def rule_of(ranks: Ranks) -> RankRule:
    """The rule behind the settings of a plain LoRA."""
    chosen = ranks.energy is not None or ranks.error is not None
    return RankRule(ranks.rank or (LARGEST_RANK if chosen else DEFAULT_RANK), ranks.energy, ranks.error)


def check_output(path: Path) -> None:
    """Raises: ConfigError: the file to write is no ``.safetensors``."""
    if path.suffix != ".safetensors":
        raise ConfigError(f"The output is a .safetensors file, got {path}.")


def required(adapter: Path | None) -> Path:
    """Raises: ConfigError: no adapter was given."""
    if adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    return adapter


def base_weights(states: Sequence[AdapterState], given: str | None) -> Mapping[str, Tensor]:
    """The weights of the base that ``states`` were trained on, as far as any of them needs it; warns of another one.

    Raises:
        ConfigError: one needs it, and nobody knows which it is.
        ModelError: it cannot be read.
    """
    needy = [state for state in states if needs_base(state)]
    if not needy:
        return {}
    name = given or next((state.base_name for state in needy if state.base_name), None)
    if not name:
        raise ConfigError(
            "What a DoRA does depends on its base, and this file does not say which that is: give "
            "--pretrained_model_name_or_path."
        )
    weights = open_base(name).weights
    for state in needy:
        present = [layer for layer in state.layers if layer in weights]
        warn_if_other_base(state, only(weights, present), name)
    return weights


def write(state: AdapterState, format_name: str, path: Path) -> None:
    """Write ``state`` in a registered format. Raises: FormatError, MachineError."""
    FORMATS.load(format_name).write(state, path)
