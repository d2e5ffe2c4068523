"""A service that remembers what it was asked and answers with one of each kind, for tests of what stands before it."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from dora_diffusion.errors import ConfigError, StudioError
from dora_diffusion.studio.bases import Base, BaseCheck
from dora_diffusion.studio.comparisons import Cell, Grid
from dora_diffusion.studio.estimates import Estimate
from dora_diffusion.studio.exports import Export, FormatNote, Verdict
from dora_diffusion.studio.failures import Failure, Remedy
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.jobs import Job
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.subjects import PhotoNote, Subject

REX = Subject("rex-1", "Rex <b>", "dog", "sks", "toybox", 1.0, None, None, None)
FAILURE = Failure("out_of_memory", "The GPU ran out of memory.", (Remedy("smaller", "Retry at 384 px"),))
JOB = Job(
    *("job-1", "rex-1", 2.0, None, "failed", 7, 300, 0.25, None, None, None, 31.5, None, "cpu", 1),
    *(False, "It failed.", FAILURE, None, "balanced, 300 steps"),
)


class Pretended:
    """A studio. ``asked`` holds (method, arguments) of every call; ``drawing`` is held by who draws."""

    def __init__(self, folder: Path):
        self.home = Home(folder)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.seen: list[bytes] = []  # the content of the photos of the last subject
        self.drawing = threading.Event()
        self.drawing.set()
        note = PhotoNote("01.jpg", "IMG_1.JPG", folder / "01.jpg", folder / "t.jpg", ("It is blurred.",))
        self.subjects = SimpleNamespace(
            list=lambda: [REX],
            get=self._get_subject,
            photos=lambda id: [note],
            adapter=lambda id: None,
            create=self._create,
            samples=lambda: ["teapot"],
            create_from_sample=self._told("create_from_sample", REX),
            delete=self._told("delete", None),
            restore=self._told("restore", REX),
            choose=self._told("choose", None),
        )
        self.jobs = SimpleNamespace(
            of_subject=lambda id: [JOB],
            list=self._told("list", [JOB]),
            get=self._told("get", JOB),
            losses=lambda id: [(1, 0.5), (2, 0.25)],
            checkpoints=lambda id: [100, 200],
            qualities=lambda base: {"quick": "100 steps", "balanced": "300 steps"},
            config=self._told("config", "a config"),
            enqueue=self._enqueue,
            cancel=self._told("cancel", JOB),
            resume=self._told("resume", JOB),
            apply=self._told("apply", JOB),
        )
        toybox = Base("toybox", "toybox", "sd", "embedded", 128, False, "")
        self.bases = SimpleNamespace(
            list=lambda: [toybox],
            get=lambda name: toybox,
            check=lambda name: BaseCheck(True, f"{name} is a base.", toybox),
            add=self._told("add", toybox),
        )
        self.estimates = SimpleNamespace(of=lambda config: Estimate(60.0, 1.5, 8.0, "3 earlier trainings here"))
        self.pictures = SimpleNamespace(draw=self._draw, history=self._history)
        self.comparisons = SimpleNamespace(
            plan=self._plan, draw=lambda grid: iter(grid.cells), save=lambda grid: self._png("grids/g.png")
        )
        self.exports = SimpleNamespace(
            formats=lambda: [FormatNote("kohya", "one file", ("ComfyUI",), "nothing")], export=self._export
        )

    def _told(self, name: str, answer: Any) -> Any:
        def method(*values: Any) -> Any:
            self.asked.append((name, values))
            return answer

        return method

    def _get_subject(self, id: str) -> Subject:
        if self.home.check_id("subject", id) != "rex-1":
            raise StudioError(f"There is no subject called {id}, 'tis <said>.")
        return REX

    def _create(self, photos: Sequence[Path], *words: str) -> Subject:
        self.seen = [photo.read_bytes() for photo in photos]
        self.asked.append(("create", words))
        return REX

    def _enqueue(self, subject: str, quality: str, overrides: dict[str, Any]) -> Job:
        if "learning_rat" in overrides:
            raise ConfigError("learning_rat: there is no such setting.")
        if quality == "explode":
            raise RuntimeError("secret inner words")
        self.asked.append(("enqueue", (subject, quality, overrides)))
        return JOB

    def _png(self, name: str) -> Path:
        path = self.home.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (1, 2, 3)).save(path, format="PNG")
        return path

    def _draw(self, order: Order) -> Iterator[Any]:
        self.asked.append(("draw", (order,)))
        if not order.prompt:
            raise StudioError("Write what the picture shall show.")
        return self._drawn(order)

    def _drawn(self, order: Order) -> Iterator[Any]:
        for number in range(order.num_images):
            self.drawing.wait(30)
            own = replace(order, num_images=1, seed=order.seed + number)
            yield SimpleNamespace(path=self._png(f"pictures/{number}.png"), order=own)

    def _history(self, *values: Any) -> list[Any]:
        self.asked.append(("history", values))
        return [SimpleNamespace(order=Order(prompt="a dog"))]

    def _plan(self, mode: Any, order: Order, values: Sequence[float], seeds: Sequence[int]) -> Grid:
        self.asked.append(("plan", (mode, order, tuple(values), tuple(seeds))))
        cells = tuple(Cell(0, column, replace(order, strength=value)) for column, value in enumerate(values))
        return Grid("g", mode, ("seed 0",), tuple(f"{value:g}" for value in values), cells, None)

    def _export(self, *values: Any) -> Export:
        self.asked.append(("export", values))
        path = self._png("exports/export-1/rex.safetensors")
        verdict = Verdict("ComfyUI", True, "the same", 1e-7, 1e-5, True)
        return Export("export-1", "rex-1", "kohya", "fp32", 3.0, path, 99, "ab" * 32, (verdict,), 1.5, "")
