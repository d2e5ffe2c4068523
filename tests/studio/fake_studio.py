"""A studio that only pretends: the service's shape with everything in memory, for tests of the page.

What a test wants to see it sets: ``studio.jobs.known["job-1"] = job(state="failed", ...)``; nothing runs by itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_makers import FakeComparisons, FakeExports, FakePictures
from PIL import Image

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.bases import Base, BaseCheck
from dora_diffusion.studio.estimates import Estimate
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.jobs import Job, Preview
from dora_diffusion.studio.subjects import PhotoNote, Subject

SAMPLES = Path(__file__).parents[2] / "samples" / "subjects"
TOYBOX = Base("toybox", "Toybox (embedded)", "sd1", "embedded", 128, False, "")


def a_job(**changes: Any) -> Job:
    """A training in the middle, with ``changes``."""
    usual = Job(
        id="job-1",
        subject_id="teapot-1",
        created=1.0,
        position=None,
        state="running",
        step=120,
        total=300,
        loss=0.1234,
        likeness=0.71,
        seconds_left=95.0,
        starts_in=None,
        step_ms=400.0,
        memory_gib=1.4,
        device="cpu",
        attempt=1,
        stop_asked=False,
        message="",
        failure=None,
        best_step=100,
        settings="balanced, 300 steps",
        quality="balanced",
    )
    return replace(usual, **changes)


def a_subject(**changes: Any) -> Subject:
    """A teapot, with ``changes``."""
    return replace(Subject("teapot-1", "Teapot 1", "teapot", "sks", "toybox", 1.0, None, None, None), **changes)


class FakeSubjects:
    def __init__(self, home: Home, touch: Any):
        self._home, self._touch = home, touch
        self.known: dict[str, Subject] = {}
        self.findings: dict[str, tuple[str, ...]] = {}
        self.adapters: dict[str, Path] = {}

    def _folder(self, id: str) -> Path:
        return self._home.media_of("photos", id)

    def create(
        self, photos: Sequence[Path], name: str, class_noun: str, trigger: str = "", base: str = "toybox"
    ) -> Subject:
        number = len(self.known) + 1
        word = class_noun.strip() or "subject"
        made = Subject(
            f"{word}-{number}", name or f"{word} {number}", class_noun, trigger or "sks", base, number, None, None, None
        )
        self.known[made.id] = made
        self.add_photos(made.id, photos)
        return made

    def draft(self, base: str = "toybox") -> Subject:
        made = Subject(f"subject-{len(self.known) + 1}", "", "", "sks", base, len(self.known), None, None, None)
        self.known[made.id] = made
        return made

    def latest_draft(self) -> Subject | None:
        return next((one for one in reversed(self.known.values()) if not one.class_noun and one.deleted is None), None)

    def samples(self) -> list[str]:
        return ["teapot", "backpack", "robot"]

    def create_from_sample(self, name: str) -> Subject:
        if name not in self.samples():
            raise StudioError(f"There is no sample called {name}.")
        return self.create(sorted((SAMPLES / name).glob("*.jpg")), "", name)

    def get(self, id: str) -> Subject:
        if id not in self.known:
            raise StudioError(f"There is no subject called {id}.")
        return self.known[id]

    def list(self) -> list[Subject]:
        return [one for one in reversed(self.known.values()) if one.deleted is None and one.class_noun]

    def photos(self, id: str) -> list[PhotoNote]:
        self.get(id)
        files = sorted(self._folder(id).glob("*.jpg"))
        return [PhotoNote(file.name, file.name, file, file, self.findings.get(file.name, ())) for file in files]

    def add_photos(self, id: str, paths: Sequence[Path]) -> list[str]:
        self.get(id)
        refused, number = [], len(list(self._folder(id).glob("*.jpg")))
        for path in paths:
            try:
                Image.open(path).verify()
            except Exception:
                refused.append(f"{path.name} is not a photo. It was left out.")
                continue
            number += 1
            shutil.copyfile(path, self._folder(id) / f"{number:02d}.jpg")
        self._touch()
        return refused

    def remove_photo(self, id: str, name: str) -> None:
        self.get(id)
        (self._folder(id) / Path(name).name).unlink(missing_ok=True)
        self._touch()

    def update(self, id: str, **changes: Any) -> Subject:
        given = {name: value for name, value in changes.items() if value is not None}
        if "class_noun" in given and not self.get(id).name:
            given = {"name": f"{given['class_noun']} {len(self.known)}", **given}
        self.known[id] = replace(self.get(id), **given)
        self._touch()
        return self.known[id]

    def rename(self, id: str, name: str) -> Subject:
        return self.update(id, name=name)

    def delete(self, id: str, typed_name: str) -> None:
        if typed_name != self.get(id).name:
            raise StudioError(f"Type the name {self.get(id).name!r} to delete it; got {typed_name!r}.")
        self.update(id, deleted=1.0)

    def restore(self, id: str) -> Subject:
        self.known[id] = replace(self.get(id), deleted=None)
        self._touch()
        return self.known[id]

    def adapter(self, id: str) -> Path | None:
        self.get(id)
        return self.adapters.get(id)

    def choose(self, id: str, job_id: str, step: int | None) -> None:
        self.update(id, chosen_job=job_id, chosen_step=step)


class FakeJobs:
    def __init__(self, subjects: FakeSubjects):
        self._subjects = subjects
        self._revision = 0
        self.known: dict[str, Job] = {}
        self.orders: list[tuple[Any, ...]] = []
        self.drawn: list[Preview] = []
        self.alike: list[tuple[int, float]] = []
        self.steps: list[int] = []
        self.kept: dict[str, list[str]] = {}

    def touch(self) -> None:
        self._revision += 1

    def put(self, job: Job) -> Job:
        self.known[job.id] = job
        self.touch()
        return job

    def enqueue(self, subject_id: str, quality: str, overrides: Mapping[str, Any] = {}) -> Job:  # noqa: B006 - read only
        subject = self._subjects.get(subject_id)
        if not subject.class_noun:
            raise StudioError("What is it? Write one or two words, for example: teapot, dog, backpack.")
        if any(job.is_active or job.state == "queued" for job in self.of_subject(subject_id)):
            raise StudioError(f"{subject.name} is being trained already.")
        total = self.config(subject_id, quality, overrides).run.max_train_steps
        self.orders.append(("enqueue", subject_id, quality, dict(overrides)))
        started = {"state": "starting", "step": 0, "total": total, "loss": None, "likeness": None, "best_step": None}
        return self.put(a_job(id=f"job-{len(self.known) + 1}", subject_id=subject_id, quality=quality, **started))

    def qualities(self, base: str) -> dict[str, str]:
        return {"quick": "120 steps", "balanced": "300 steps", "best": "900 steps"}

    def config(self, subject_id: str, quality: str, overrides: Mapping[str, Any] = {}) -> TrainConfig:  # noqa: B006
        subject = self._subjects.get(subject_id)
        given: dict[str, Any] = {"preset": f"toybox-{quality}", "data": {"class_noun": subject.class_noun or None}}
        for name, value in overrides.items():
            section, _, leaf = name.partition(".")
            given.setdefault(section, {})[leaf] = value
        return TrainConfig(**given)

    def get(self, id: str) -> Job:
        if id not in self.known:
            raise StudioError(f"There is no training called {id}.")
        return self.known[id]

    def list(self, limit: int = 50, offset: int = 0, state: str | None = None) -> list[Job]:
        return [job for job in reversed(self.known.values()) if state in (None, job.state)][offset : offset + limit]

    def current(self) -> list[Job]:
        jobs = [job for job in self.known.values() if job.is_active or job.state == "queued"]
        return sorted(jobs, key=lambda job: (not job.is_active, job.position or 0))

    def of_subject(self, subject_id: str) -> list[Job]:
        return [job for job in self.list() if job.subject_id == subject_id]

    def begun(self) -> set[str]:
        return set(self._subjects.known)

    def _note(self, what: str, id: str, *more: Any) -> Job:
        self.orders.append((what, id, *more))
        return self.get(id)

    def cancel(self, id: str) -> Job:
        return self.put(replace(self._note("cancel", id), stop_asked=True))

    def resume(self, id: str) -> Job:
        return self.put(replace(self._note("resume", id), state="starting"))

    def apply(self, id: str, remedy: str) -> Job:
        return self._note("apply", id, remedy)

    def move_up(self, id: str) -> Job:
        return self._note("move_up", id)

    def remove(self, id: str) -> None:
        self.known.pop(id)

    def losses(self, id: str) -> list[tuple[int, float]]:
        return [(step, 0.1 + 0.3 / step + 0.02 * (step * 7 % 5)) for step in range(1, self.get(id).step + 1)]

    def previews(self, id: str) -> list[Preview]:
        return self.drawn

    def likeness(self, id: str) -> list[tuple[int, float]]:
        return self.alike

    def photos(self, id: str) -> list[str]:
        return self.kept.get(id) or [photo.name for photo in self._subjects.photos(self.get(id).subject_id)]

    def checkpoints(self, id: str) -> list[int]:
        return self.steps

    def adapter(self, id: str, step: int | None = None) -> Path:
        raise StudioError("There is none.")

    def log_tail(self, id: str, lines: int = 50) -> str:
        return "loading <toybox>\nstep 1"

    def revision(self) -> int:
        return self._revision


class FakeBases:
    def __init__(self) -> None:
        self.known = [TOYBOX]

    def list(self) -> list[Base]:
        return self.known

    def check(self, name: str) -> BaseCheck:
        if name == "/models/good":
            return BaseCheck(True, "A Stable Diffusion 1.5 model.", Base(name, "good", "sd1", "folder", 512, False, ""))
        return BaseCheck(False, f"{name} has no model_index.json.")

    def get(self, name: str) -> Base:
        found = [base for base in self.known if base.name == name]
        if not found:
            raise StudioError(f"There is no base model {name!r} here.")
        return found[0]

    def add(self, name: str, download: bool = False, stop: Any = None) -> Base:
        found = self.check(name)
        if found.base is None:
            raise StudioError(found.words)
        self.known.append(found.base)
        return found.base


class FakeEstimates:
    def __init__(self) -> None:
        self.told: Estimate | None = Estimate(120.0, 1.4, 24.0, "a two-step measurement")
        self.measures = False

    def of(self, config: TrainConfig) -> Estimate | None:
        return self.told

    def is_measuring(self, config: TrainConfig) -> bool:
        return self.measures


class FakeStudio:
    """See the module's head."""

    def __init__(self, home: Path):
        self.home = Home(home)
        self.subjects = FakeSubjects(self.home, lambda: self.jobs.touch())
        self.jobs = FakeJobs(self.subjects)
        self.bases = FakeBases()
        self.estimates = FakeEstimates()
        self.pictures = FakePictures(self)
        self.comparisons = FakeComparisons(self, self.pictures)
        self.exports = FakeExports(self)
        self.is_read_only = False

    def start(self) -> None: ...

    def close(self) -> None: ...
