"""Pictures, comparisons and exports that only pretend: real files of plain colours, drawn at the pace a test wants.

A ``FakeStudio`` has them.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.comparisons import Cell, Grid
from dora_diffusion.studio.exports import Export, FormatNote, Verdict
from dora_diffusion.studio.orders import Order, checked, one_by_one
from dora_diffusion.studio.pictures import Picture

GOOD = Verdict("diffusers", True, "loads it right", 2.1e-7, 3.3e-5, True)
BAD = Verdict("a1111", False, "drops the magnitudes", 0.2, 0.9, False)


class FakePictures:
    def __init__(self, studio: Any):
        self._studio = studio
        self.known: list[Picture] = []
        self.step_s = 0.0
        self.broken = ""
        self.notes: list[str] = []
        self.found = (Order(prompt="a photo of sks teapot in the snow", seed=77, strength=0.8), ["Rex is not here."])

    def draw(
        self, order: Order, on_step: Callable[[int, int], None] | None = None, stop: threading.Event | None = None
    ) -> Iterator[Picture]:
        order = checked(order)
        if self.broken:
            raise StudioError(self.broken)
        return self._drawn(order, on_step or (lambda done, total: None), stop or threading.Event())

    def _drawn(self, order: Order, on_step: Callable[[int, int], None], stop: threading.Event) -> Iterator[Picture]:
        steps = order.num_inference_steps
        for number, one in enumerate(one_by_one(order)):
            for step in range(steps):
                if stop.wait(self.step_s):
                    return
                on_step(number * steps + step + 1, order.num_images * steps)
            yield self.keep(one)

    def keep(self, order: Order) -> Picture:
        folder = self._studio.home.media_of("pictures", order.subject_id or f"base-{order.base}")
        number = len(self.known) + 1
        path = folder / f"{number:05d}-seed{order.seed}.png"
        colour = (order.seed * 47 % 256, int(255 * order.strength / 1.5), number * 31 % 256)
        info = PngInfo()
        info.add_text("dora_diffusion", f'{{"seed": {order.seed}}}')
        Image.new("RGB", (128, 128), colour).save(path, pnginfo=info)
        made = Picture(number, path, path, time.time(), order, order.prompt)
        self.known.append(made)
        self._studio.jobs.touch()
        return made

    def history(self, subject_id: str | None = None, limit: int = 24, offset: int = 0) -> list[Picture]:
        return self._of(subject_id)[::-1][offset : offset + limit]

    def count(self, subject_id: str | None = None) -> int:
        return len(self._of(subject_id))

    def _of(self, subject_id: str | None) -> list[Picture]:
        return [made for made in self.known if subject_id in (None, made.order.subject_id or "")]

    def get(self, picture_id: int) -> Picture:
        found = [made for made in self.known if made.id == picture_id]
        if not found:
            raise StudioError(f"There is no picture {picture_id}.")
        return found[0]

    def read(self, path: Path) -> tuple[Order, list[str]]:
        if "settings" not in path.name:
            raise StudioError(f"{path.name} does not say how it was made.")
        return self.found

    def again(self, picture_id: int) -> tuple[Order, list[str]]:
        return self.get(picture_id).order, list(self.notes)

    def delete(self, picture_id: int) -> None:
        self.known.remove(self.get(picture_id))
        self._studio.jobs.touch()


class FakeComparisons:
    def __init__(self, studio: Any, pictures: FakePictures):
        self._studio, self._pictures = studio, pictures

    def plan(self, mode: Any, order: Order, values: Sequence[float] = (), seeds: Sequence[int] = ()) -> Grid:
        order = checked(order)
        rows = list(seeds) or [order.seed]
        columns: list[tuple[str, dict[str, Any]]] = {
            "base": [("base alone", {"strength": 0.0}), ("subject", {})],
            "strengths": [(f"strength {value:g}", {"strength": value}) for value in values],
            "seeds": [(f"seed {value:g}", {"seed": int(value)}) for value in values],
            "checkpoints": [(f"step {value:g}", {"step": int(value)}) for value in values],
        }[mode]
        if len(rows) * len(columns) > 36:
            raise StudioError(f"{len(rows) * len(columns)} pictures are too many: at most 36. Leave some out.")
        cells = tuple(
            Cell(
                row,
                column,
                checked(replace(order, seed=seed, **changes) if "seed" not in changes else replace(order, **changes)),
            )
            for row, seed in enumerate(rows)
            for column, (_, changes) in enumerate(columns)
        )
        return Grid(
            "grid-1", mode, tuple(f"seed {seed}" for seed in rows), tuple(name for name, _ in columns), cells, 25.0
        )

    def draw(self, grid: Grid, on_cell: Any = None, stop: threading.Event | None = None) -> Iterator[Cell]:
        for cell in grid.cells:
            for _ in range(5):
                if stop is not None and stop.wait(self._pictures.step_s):
                    return
            made = self._pictures.keep(cell.order)
            yield replace(cell, path=made.path, thumb=made.thumb)

    def save(self, grid: Grid) -> Path:
        path = self._studio.home.media_of("grids", grid.id) / "grid.png"
        Image.new("RGB", (128 * len(grid.columns), 128 * len(grid.rows)), "teal").save(path)
        return path


class FakeExports:
    def __init__(self, studio: Any):
        self._studio = studio
        self.known: list[Export] = []
        self.refused = ""
        self.verdicts = (GOOD, BAD)
        self.step_s = 0.0
        self.asked: list[dict[str, Any]] = []

    def formats(self, subject_id: str | None = None) -> list[FormatNote]:
        return [
            FormatNote("diffusers", "DoRA for diffusers scripts", ("diffusers",), "A1111 does not read it"),
            FormatNote("comfyui", "DoRA for ComfyUI and Forge", ("ComfyUI", "Forge"), ""),
            FormatNote("lora", "plain LoRA, the nearest there is", ("all",), "the exact change", takes_rank=True),
            FormatNote(
                "merged", "a whole model, zipped", ("diffusers",), "it cannot be turned off", takes_strength=True
            ),
        ]

    def export(self, subject_id: str, format: str, on_note: Any = None, stop: Any = None, **settings: Any) -> Export:
        self.asked.append({"subject_id": subject_id, "format": format, **settings})
        if self.refused:
            raise StudioError(self.refused)
        for words in ("Writing the file", "Reading it back"):
            on_note(words)
            time.sleep(self.step_s)
        number = len(self.known) + 1
        path = self._studio.home.media_of("exports", f"export-{number}") / f"{subject_id}-{format}.safetensors"
        path.write_bytes(b"weights" * 1000)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        precision = str(settings["precision"])
        made = Export(
            f"export-{number}", subject_id, format, precision, time.time(), path, 7000, digest, self.verdicts, 1.5, ""
        )
        self.known.append(made)
        self._studio.jobs.touch()
        return made

    def list(self, subject_id: str | None = None) -> list[Export]:
        return [made for made in reversed(self.known) if subject_id in (None, made.subject_id)]

    def get(self, export_id: str) -> Export:
        found = [made for made in self.known if made.id == export_id]
        if not found:
            raise StudioError(f"There is no export {export_id}.")
        return found[0]

    def delete(self, export_id: str) -> None:
        self.known.remove(self.get(export_id))
        self._studio.jobs.touch()


def trained_teapot(studio: Any, photos: Sequence[Path]) -> str:
    """A subject that is taught, with a finished training and three checkpoints; returns its id."""
    from fake_studio import a_job

    subject = studio.subjects.create(photos, "Teapot", "teapot")
    studio.jobs.put(
        a_job(subject_id=subject.id, state="done", step=300, ended=time.time(), created=time.time() - 200, device="cpu")
    )
    studio.jobs.steps = [100, 200, 300]
    studio.jobs.alike = [(100, 0.61), (200, 0.78), (300, 0.74)]
    studio.subjects.adapters[subject.id] = Path("adapter.safetensors")
    return str(subject.id)
