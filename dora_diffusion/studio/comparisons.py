"""Comparisons: the same picture with one thing changed a column or a row, as a grid with headers."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.pictures import Pictures

if TYPE_CHECKING:
    from dora_diffusion.studio.home import Home

Mode = Literal["base", "strengths", "seeds", "checkpoints"]
MODES: dict[Mode, str] = {
    "base": "Base against subject",
    "strengths": "Strengths",
    "seeds": "Seeds",
    "checkpoints": "Checkpoints",
}
MAX_CELLS = 36


@dataclass(frozen=True)
class Cell:
    """One picture of a grid. ``path`` and ``thumb`` are None until it is drawn."""

    row: int
    column: int
    order: Order
    path: Path | None = None
    thumb: Path | None = None


@dataclass(frozen=True)
class Grid:
    """A comparison: what stands over its columns and before its rows, and its cells, row by row.

    Args:
        id: also the name of its folder in ``media/grids``.
        seconds: about what drawing takes, as measured here; None where nothing was measured yet.
    """

    id: str
    mode: Mode
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    seconds: float | None

    @property
    def cost(self) -> str:
        """ "20 pictures, about 50 s"."""
        raise NotImplementedError


class Comparisons:
    """Plans, draws and saves grids."""

    def __init__(self, home: "Home", pictures: Pictures):
        self.pictures = pictures

    def plan(self, mode: Mode, order: Order, values: Sequence[float | int] = (), seeds: Sequence[int] = ()) -> Grid:
        """What will be drawn. Nothing is drawn yet.

        Args:
            order: what every cell shares.
            values: the strengths, seeds or steps of ``order.job_id`` to compare; base needs none.
            seeds: a row for each, besides; left out, the order's (for the mode seeds: the order's one row).

        Raises:
            StudioError: over 36 cells, or something that cannot be drawn.
        """
        raise NotImplementedError

    def draw(
        self,
        grid: Grid,
        on_cell: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Cell]:
        """Each cell as soon as it is drawn. Stopped, it ends after those that were.

        Args:
            on_cell: (cells done, of all).
        """
        raise NotImplementedError

    def save(self, grid: Grid) -> Path:
        """One PNG with headers, of the cells that were drawn; in ``media/grids``.

        Raises:
            StudioError: none was.
        """
        raise NotImplementedError


def numbers(text: str) -> list[float]:
    """The numbers of "0, 0.4, 0.7" as people type them.

    Raises:
        StudioError: a word that is none.
    """
    raise NotImplementedError
