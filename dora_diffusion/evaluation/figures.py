"""Figures with intervals, from one trained subject or from many."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dora_diffusion.errors import DataError
from dora_diffusion.evaluation.bootstrap import Interval, Statistic, interval, mean, proportion_interval
from dora_diffusion.evaluation.likeness import check_range, normalised
from dora_diffusion.evaluation.measure import Measured

Grid = Sequence[Sequence[Measured]]  # subjects, then training seeds


@dataclass(frozen=True)
class FigureKind:
    """How a figure is made.

    Args:
        label: what it is, for a reader.
        needs: groups of pictures without which there is none.
        columns: (pictures, columns) of one run, given the gate.
        statistic: what the columns of one run come to.
        share: whether the columns are yes or no.
        on_scale: whether it is read between floor and ceiling, and refused where these are too near.
    """

    label: str
    needs: tuple[str, ...]
    columns: Callable[[Measured, float], Tensor]
    statistic: Statistic = mean
    share: bool = False
    on_scale: bool = False


def _likeness(pictures: Tensor) -> Tensor:
    """Columns: cosine, accepted, the base's cosine from the same seed, ceiling."""
    cosine, accepted, base, ceiling = pictures.unbind(-1)
    return normalised(cosine, accepted, base.mean(-1, keepdim=True), ceiling).mean(-1)


def _gain(pictures: Tensor) -> Tensor:
    """Columns: cosine and accepted with the adapter, both of the worded base, the base's cosine, ceiling."""
    point = pictures[..., 4:]
    return _likeness(torch.cat([pictures[..., :2], point], -1)) - _likeness(torch.cat([pictures[..., 2:4], point], -1))


def _likeness_columns(*groups: str) -> Callable[[Measured, float], Tensor]:
    def columns(measured: Measured, gate: float) -> Tensor:
        found = [torch.tensor(measured.groups[name].cosine) for name in (*groups, "base_bare")]
        accepted = [torch.tensor(measured.groups[name].probability) >= gate for name in groups]
        pairs = [column for pair in zip(found, accepted, strict=False) for column in pair]
        ceiling = torch.tensor(measured.ceiling).mean().expand(len(found[0]))
        return torch.stack([column.double() for column in (*pairs, found[-1], ceiling)], -1)

    return columns


def _leak_columns(measured: Measured, gate: float) -> Tensor:
    """As for likeness, with no gate: a picture that shows something else has not leaked less."""
    columns = _likeness_columns("bare")(measured, gate)
    columns[:, 1] = 1
    return columns


def _right(group: str, what: str) -> Callable[[Measured, float], Tensor]:
    return lambda measured, _: torch.tensor(getattr(measured.groups[group], what)).double()[:, None]


def _difference(group: str, base: str, what: str) -> Callable[[Measured, float], Tensor]:
    return lambda measured, gate: _right(group, what)(measured, gate) - _right(base, what)(measured, gate)


def _scaled(label: str, *groups: str, columns: Callable[[Measured, float], Tensor] | None = None) -> FigureKind:
    statistic = _gain if len(groups) == 2 else _likeness
    return FigureKind(label, (*groups, "base_bare"), columns or _likeness_columns(*groups), statistic, on_scale=True)


def _share(label: str, group: str, what: str) -> FigureKind:
    return FigureKind(label, (group,), _right(group, what), share=True)


def _against(label: str, group: str, base: str, what: str) -> FigureKind:
    return FigureKind(label, (group, base), _difference(group, base, what))


FIGURES: Mapping[str, FigureKind] = {
    "likeness": _scaled("likeness (0 any toy of the class, 1 a true photo)", "subject"),
    "worded_likeness": _scaled("the same of the base given a description", "base_worded"),
    "gain_over_words": _scaled("likeness gained over the description", "subject", "base_worded"),
    "leakage": _scaled("likeness gained by the bare class (leakage)", "bare", columns=_leak_columns),
    "scene": _share("scene as asked", "subject", "scene_right"),
    "kind": _share("class as asked", "subject", "class_right"),
    "kind_against_base": _against("class against the base's", "subject", "base_bare", "class_right"),
    "style": _share("style as asked, style prompts", "styled", "style_right"),
    "other_kind": _share("other classes: class as asked", "others", "class_right"),
    "other_kind_against_base": _against(
        "other classes: class against the base's", "others", "base_others", "class_right"
    ),
    "other_scene": _share("other classes: scene as asked", "others", "scene_right"),
    "other_scene_against_base": _against(
        "other classes: scene against the base's", "others", "base_others", "scene_right"
    ),
}


def figures(grid: Grid, gate: float) -> dict[str, Interval]:
    """Every figure of ``FIGURES`` that these runs give. Subjects whose scale is refused are left out of those on it."""
    return {
        name: found for name, kind in FIGURES.items() if (found := figure(_fit_for(grid, kind), kind, gate)) is not None
    }


def figure(grid: Grid, kind: FigureKind, gate: float) -> Interval | None:
    """One figure; None where no run has the pictures for it."""
    if not grid or not set(kind.needs) <= grid[0][0].groups.keys():
        return None
    table = _table(grid, kind, gate)
    if kind.share:
        return proportion_interval(table[..., 0] > 0.5)
    return interval(table, kind.statistic)


def difference(grid: Grid, other: Grid, name: str, gate: float) -> Interval | None:
    """Figure ``name`` of ``grid`` minus that of ``other``, paired: the same subjects, training and picture seeds."""
    kind = FIGURES[name]
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(grid, other, strict=True)
        if not kind.on_scale or not (_refusals(ours) or _refusals(theirs))
    ]
    if not pairs or not set(kind.needs) <= pairs[0][0][0].groups.keys():
        return None
    first, second = (_table([pair[side] for pair in pairs], kind, gate) for side in (0, 1))
    width = first.shape[-1]

    def paired(pictures: Tensor) -> Tensor:
        return kind.statistic(pictures[..., :width]) - kind.statistic(pictures[..., width:])

    return interval(torch.cat([first, second], -1), paired)


def per_subject(grid: Grid, name: str, gate: float) -> list[float | None]:
    """Figure ``name`` of each subject alone, averaged over its training seeds; None where it is refused."""
    kind = FIGURES[name]
    values: list[float | None] = []
    for runs in grid:
        if not set(kind.needs) <= runs[0].groups.keys() or (kind.on_scale and _refusals(runs)):
            values.append(None)
        else:
            values.append(kind.statistic(_table([runs], kind, gate)).mean().item())
    return values


def refusal(measured: Measured) -> str | None:
    """Why no likeness can be given for this run, in a sentence; None where it can."""
    try:
        check_range(*raw_range(measured))
    except DataError as error:
        return str(error)
    return None


def raw_range(measured: Measured) -> tuple[float, float]:
    """Floor and ceiling, as mean cosines."""
    cosines = measured.groups["base_bare"].cosine
    return sum(cosines) / len(cosines), sum(measured.ceiling) / len(measured.ceiling)


def _fit_for(grid: Grid, kind: FigureKind) -> Grid:
    return [runs for runs in grid if not _refusals(runs)] if kind.on_scale else grid


def _refusals(runs: Sequence[Measured]) -> list[str]:
    return [sentence for run in runs if (sentence := refusal(run)) is not None]


def _table(grid: Grid, kind: FigureKind, gate: float) -> Tensor:
    """(subjects, seeds, pictures, columns)."""
    return torch.stack([torch.stack([kind.columns(run, gate) for run in runs]) for runs in grid])
