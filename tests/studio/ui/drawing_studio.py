"""The fake studio, remembering what it was asked to draw and to export: for tests of the endpoints.

Run as a script it is served: python drawing_studio.py HOME PORT [--mcp]
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_studio import FakeStudio

from dora_diffusion.config import AppConfig
from dora_diffusion.studio.comparisons import Grid
from dora_diffusion.studio.exports import Export
from dora_diffusion.studio.jobs import Job
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.pictures import Picture


class DrawingStudio(FakeStudio):
    """``asked``: (what, arguments) of each order. "wait" is drawn when there is a file ``go``; "explode" is a
    fault; trainings are done when there is a file ``done``."""

    def __init__(self, home: Path):
        super().__init__(home)
        self.asked: list[tuple[str, Any]] = []
        self.go = home / "go"
        self.job_known, self.jobs.get = self.jobs.get, self._job
        self.draws, self.plans, self.exported = self.pictures.draw, self.comparisons.plan, self.exports.export
        self.pictures.draw, self.comparisons.plan, self.exports.export = self._draw, self._plan, self._export

    def _job(self, id: str) -> Job:
        known = self.job_known(id)
        return replace(known, state="done") if (self.home.path / "done").exists() else known

    def _draw(self, order: Order, *_: Any) -> Iterator[Picture]:
        self.asked.append(("draw", order))
        if order.prompt == "explode":
            raise RuntimeError("inner words")
        while order.prompt == "wait" and not self.go.exists():
            time.sleep(0.01)
        return iter(self.draws(order))

    def _plan(self, mode: Any, order: Order, values: Sequence[float], seeds: Sequence[int]) -> Grid:
        self.asked.append(("plan", (mode, order, tuple(values), tuple(seeds))))
        return self.plans(mode, order, values, seeds)

    def _export(self, subject: str, format: str, **settings: Any) -> Export:
        self.asked.append(("export", {"subject": subject, "format": format, **settings}))
        return self.exported(subject, format, on_note=print, **settings)


if __name__ == "__main__":
    from dora_diffusion.studio.ui.launch import serve

    config = AppConfig(port=int(sys.argv[2]), browser=False, mcp="--mcp" in sys.argv)
    serve(DrawingStudio(Path(sys.argv[1])), config, None, lambda address: print(address, flush=True))
