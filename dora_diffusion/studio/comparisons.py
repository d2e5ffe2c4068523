"""Comparisons: the same picture with one thing changed a column or a row, as a grid with headers."""

import math
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from dora_diffusion.errors import StudioError, about
from dora_diffusion.studio.grid_picture import grid_picture
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.orders import RANDOM, Order, decided
from dora_diffusion.studio.pictures import Pictures
from dora_diffusion.studio.workshop import StoppedError

Mode = Literal["base", "strengths", "seeds", "checkpoints"]
MODES: dict[Mode, str] = {
    "base": "Base against subject",
    "strengths": "Strengths",
    "seeds": "Seeds",
    "checkpoints": "Checkpoints",
}
MAX_CELLS = 36
KEPT = 40  # grids; the oldest go


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
        count = len(self.cells)
        pictures = f"{count} picture{'s' if count > 1 else ''}"
        if self.seconds is None:
            return f"{pictures}; how long that takes is known after the first"
        return f"{pictures}, {about(self.seconds)}"


class Comparisons:
    """Plans, draws and saves grids."""

    def __init__(self, home: Home, pictures: Pictures):
        self._home, self._pictures = home, pictures

    def plan(self, mode: Mode, order: Order, values: Sequence[float] = (), seeds: Sequence[float] = ()) -> Grid:
        """What will be drawn. Nothing is drawn yet.

        Args:
            order: what every cell shares.
            values: the strengths, seeds or steps of ``order.job_id`` to compare; base needs none.
            seeds: a row for each, besides; left out, the order's (for the mode seeds: one row).

        Raises:
            StudioError: over 36 cells, or something that cannot be drawn.
        """
        columns = _columns(mode, [_fixed(seed) for seed in values] if mode == "seeds" else values)
        rows: list[float | None] = [None] if mode == "seeds" or not seeds else [*map(_fixed, dict.fromkeys(seeds))]
        count = len(columns) * len(rows)
        if count > MAX_CELLS:
            raise StudioError(
                f"That is {len(columns)} x {len(rows)} = {count} pictures; at most {MAX_CELLS} at a time. "
                "Compare fewer, or use fewer seeds."
            )
        if order.subject_id is None and mode != "seeds":
            raise StudioError(f"{MODES[mode]}: of which subject? Choose one.")
        shared = replace(decided(order), num_images=1)
        cells = []
        for i, seed in enumerate(rows):
            for k, (_, change) in enumerate(columns):
                wanted = {**({} if seed is None else {"seed": seed}), **change}
                cells.append(Cell(i, k, self._pictures.looked_up(replace(shared, **wanted)).order))
        return Grid(
            f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}",
            mode,
            ("",) if mode == "seeds" else tuple(f"seed {cells[i * len(columns)].order.seed}" for i in range(len(rows))),
            tuple(header for header, _ in columns),
            tuple(cells),
            self._seconds(cells),
        )

    def draw(
        self,
        grid: Grid,
        on_cell: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Cell]:
        """Each cell as soon as it is drawn. Stopped, it ends after those that were.

        Every cell is an order of its own: who else wants a picture waits for one, not for all.

        Args:
            on_cell: (cells done, of all).

        Raises:
            StudioError: drawing failed.
        """
        folder = self._home.media_of("grids", grid.id)
        self._drop_oldest()
        for done, cell in enumerate(grid.cells, 1):
            path, thumb = _files(folder, cell)
            try:
                self._pictures.draw_into(cell.order, path, thumb, stop)
            except StoppedError:
                return
            if on_cell is not None:
                on_cell(done, len(grid.cells))
            yield replace(cell, path=path, thumb=thumb)

    def save(self, grid: Grid) -> Path:
        """One PNG with headers, of the cells that were drawn; in ``media/grids``.

        Raises:
            StudioError: none was.
        """
        folder = self._home.media_of("grids", grid.id)
        pictures: dict[tuple[int, int], Image.Image] = {}
        for cell in grid.cells:
            path, _ = _files(folder, cell)
            if path.is_file():
                with Image.open(path) as image:
                    pictures[cell.row, cell.column] = image.convert("RGB")
        if not pictures:
            raise StudioError("Nothing of this comparison was drawn yet.")
        title = grid.cells[0].order.prompt
        page = grid_picture(grid.rows, grid.columns, pictures, title)
        file, draft = folder / "grid.png", folder / ".grid.png"
        page.save(draft, format="PNG")
        draft.replace(file)
        return file

    def _seconds(self, cells: Sequence[Cell]) -> float | None:
        times = [self._pictures.seconds_for(cell.order) for cell in cells]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if len(known) == len(times) else None

    def _drop_oldest(self) -> None:
        folders = sorted(path for path in (self._home.media / "grids").iterdir() if path.is_dir())
        for folder in folders[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def numbers(text: str) -> list[float]:
    """The numbers of "0, 0.4, 0.7" as people type them.

    Raises:
        StudioError: a word that is none.
    """
    found = []
    for word in re.split(r"[\s,;]+", text.strip()):
        if not word:
            continue
        if not re.fullmatch(r"[+-]?(\d{1,12}\.?\d{0,6}|\.\d{1,6})", word):
            raise StudioError(f"Write numbers with commas between them, like 0, 0.5, 1; got {word[:40]!r}.")
        found.append(float(word))
    return found


def _columns(mode: Mode, values: Sequence[float]) -> list[tuple[str, dict[str, Any]]]:
    """What stands over each column, and what is changed in it."""
    if mode not in get_args(Mode):
        raise StudioError(f"There is no comparison {str(mode)[:40]!r}; there are: {', '.join(MODES)}.")
    if mode == "base":
        # Strength 0 is the base exactly, and gets the very same words.
        return [("base", {"strength": 0.0}), ("with the subject", {})]
    given = list(dict.fromkeys(values))
    if not given:
        raise StudioError(f"Which {mode}? Write at least one number, or choose some.")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in given):
        raise StudioError(f"The {mode} to compare are numbers.")
    if mode == "strengths":
        return [(f"strength {value:g}", {"strength": value}) for value in given]
    name = "seed" if mode == "seeds" else "step"
    return [(f"{name} {value:g}" if value % 1 else f"{name} {int(value)}", {name: value}) for value in given]


def _fixed(seed: float) -> float:
    """The seed; one that is left to chance is decided here, so that a whole row or column has the same."""
    return decided(Order(seed=RANDOM)).seed if seed == RANDOM else seed


def _files(folder: Path, cell: Cell) -> tuple[Path, Path]:
    stem = f"cell-{cell.row + 1}-{cell.column + 1}"
    return folder / f"{stem}.png", folder / f"{stem}.jpg"
