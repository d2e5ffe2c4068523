"""Approximations as users meet them: the ranks they ask for, and what is said of the result."""

from dora_diffusion.adapters.lowrank import Fits, RankRule
from dora_diffusion.config.ranks import DEFAULT_RANK, Ranks

LARGEST_RANK = 128  # where energy or error choose
MUCH_LEFT_OUT = 0.2  # of the change: it shows in pictures


def rule_of(ranks: Ranks) -> RankRule:
    """The rule behind the settings of a plain LoRA."""
    chosen = ranks.energy is not None or ranks.error is not None
    return RankRule(ranks.rank or (LARGEST_RANK if chosen else DEFAULT_RANK), ranks.energy, ranks.error)


def told(fits: Fits, rule: RankRule | None) -> list[str]:
    """What an approximation leaves out, in a line or two."""
    if not fits.layers:
        return []
    name, worst = fits.worst
    ranks = sorted(fit.rank for fit in fits.layers.values())
    span = f"{ranks[0]}" if ranks[0] == ranks[-1] else f"{ranks[0]} to {ranks[-1]}"
    rows = [
        f"{len(ranks)} layers of rank {span}; of the change of the weights {_percent(fits.residual)} is left "
        f"out (the worst layer: {_percent(worst)}, {name})"
    ]
    if fits.residual > MUCH_LEFT_OUT:
        rows.append(f"more than {_percent(MUCH_LEFT_OUT)} is much: raise the rank")
    if rule is not None and (short := fits.short_of(rule)):
        rows.append(
            f"{len(short)} layers keep less than was asked for at the largest rank, {rule.rank}, first {short[0]}; "
            "give a larger --rank"
        )
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
