"""The fake studio with pictures, comparisons and exports that remember what they were asked: for tests of the endpoints.

Run as a script it is served: python drawing_studio.py HOME PORT [--mcp]
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_studio import FakeStudio

from dora_diffusion.config import AppConfig
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.comparisons import Cell, Grid
from dora_diffusion.studio.exports import Export, FormatNote, Verdict
from dora_diffusion.studio.orders import Order, checked


class DrawingStudio(FakeStudio):
    """``asked``: (what, arguments) of each order. "wait" is drawn when there is a file ``go``; "explode" is a fault."""

    def __init__(self, home: Path):
        super().__init__(home)
        self.asked: list[tuple[str, Any]] = []
        self.go = home / "go"
        self.pictures = SimpleNamespace(draw=self._draw, history=self._history, count=lambda subject=None: 1)
        self.comparisons = SimpleNamespace(plan=self._plan, draw=lambda grid: iter(grid.cells), save=self._save)
        note = FormatNote("kohya", "one file", ("ComfyUI",), "nothing")
        self.exports = SimpleNamespace(formats=lambda: [note], export=self._export, list=lambda subject=None: [])

    def _file(self, name: str) -> Path:
        path = self.home.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (1, 2, 3)).save(path, format="PNG")
        return path

    def _draw(self, order: Order) -> Iterator[Any]:
        order = checked(order)
        self.asked.append(("draw", order))
        if order.prompt == "explode":
            raise RuntimeError("inner words")
        while order.prompt == "wait" and not self.go.exists():
            time.sleep(0.01)
        for number in range(order.num_images):
            own = replace(order, num_images=1, seed=order.seed + number)
            yield SimpleNamespace(path=self._file(f"pictures/{own.seed}.png"), order=own)

    def _history(self, *values: Any) -> list[Any]:
        self.asked.append(("history", values))
        return [SimpleNamespace(order=Order(prompt="a dog"))]

    def _plan(self, mode: Any, order: Order, values: Sequence[float], seeds: Sequence[int]) -> Grid:
        self.asked.append(("plan", (mode, order, tuple(values), tuple(seeds))))
        if len(values) > 36:
            raise StudioError("At most 36 cells.")
        cells = tuple(Cell(0, column, replace(order, strength=value)) for column, value in enumerate(values))
        return Grid("g", mode, ("seed 0",), tuple(f"{value:g}" for value in values), cells, None)

    def _save(self, grid: Grid) -> Path:
        return self._file("grids/grid.png")

    def _export(self, *values: Any) -> Export:
        self.asked.append(("export", values))
        path = self._file("exports/export-1/rex.safetensors")
        verdict = Verdict("ComfyUI", True, "the same", 1e-7, 1e-5, True)
        return Export("export-1", "teapot-1", "kohya", "fp32", 3.0, path, 99, "ab" * 32, (verdict,), 1.5, "")


if __name__ == "__main__":
    from dora_diffusion.studio.ui.launch import serve

    config = AppConfig(port=int(sys.argv[2]), browser=False, mcp="--mcp" in sys.argv)
    serve(DrawingStudio(Path(sys.argv[1])), config, None, lambda address: print(address, flush=True))
