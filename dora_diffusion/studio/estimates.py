"""What a training will take, told before it starts: from trainings that were done here, else from two steps of it."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from statistics import median

from dora_diffusion import __version__
from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import StudioError, about
from dora_diffusion.machine import memory
from dora_diffusion.studio.board import Board
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.observe import ACTIVE
from dora_diffusion.studio.slots import gpus
from dora_diffusion.studio.workshop import StoppedError, Workshop

WORTH = 20  # steps of a training that says what others take: the first are slow
MOST_RECENT = 20  # trainings that an estimate is made from
# What changes neither time nor memory of a step.
_NO_MATTER = {
    "output_dir",
    "seed",
    "max_train_steps",
    "overwrite",
    "resume_from_checkpoint",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "validation_prompt",
    "validation_steps",
    "num_validation_images",
}


@dataclass(frozen=True)
class Estimate:
    """Time and memory.

    Args:
        seconds: of the whole training, with loading and what else was measured.
        memory_gib: at its peak, of ``total_gib``; 0 where it is not known.
        source: "12 earlier trainings here" or "a two-step measurement".
    """

    seconds: float
    memory_gib: float
    total_gib: float
    source: str

    @property
    def words(self) -> str:
        """ "about 3 min, 7.2 GiB of 24 GiB"."""
        if not self.memory_gib:
            return about(self.seconds)
        of = f" of {self.total_gib:.0f} GiB" if self.total_gib else ""
        return f"{about(self.seconds)}, {self.memory_gib:.1f} GiB{of}"

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, as far as is known."""
        return not self.total_gib or self.memory_gib <= self.total_gib


class Estimates:
    """Tells what trainings take.

    Args:
        resolution_of: side in pixels of the pictures that a run is trained with.
    """

    def __init__(
        self, database: Database, resolution_of: Callable[[TrainConfig], int], workshop: Workshop, board: Board
    ):
        self._database, self._resolution, self._workshop, self._board = database, resolution_of, workshop, board
        self._guard = threading.Lock()
        self._measuring: set[str] = set()
        self._failed: set[str] = set()
        self._one_at_a_time = threading.Lock()

    def of(self, config: TrainConfig) -> Estimate | None:
        """What a training with this config (``jobs.config(...)``) takes; None while that is not known.

        Never waits: a measurement that is needed is begun in the background, and asked for again it is there. While
        something is trained none is begun: it would take the memory from it.
        """
        known = self.known(config)
        if known is None:
            self._begin(config)
        return known

    def known(self, config: TrainConfig) -> Estimate | None:
        """The same, and nothing is begun: from finished trainings, from a measurement, or from one that runs now."""
        return self._from_jobs(config) or self._from_measurement(config) or self._from_running(config)

    def is_measuring(self, config: TrainConfig) -> bool:
        """Whether the measurement that ``of`` needs is under way."""
        return self._key(config) in self._measuring

    def measure(self, config: TrainConfig) -> Estimate:
        """The same, and waits for it.

        Raises:
            StoppedError: a training began meanwhile, and has the machine for itself.
            StudioError: the two steps failed; the message says why.
        """
        known = self.known(config)
        if known is not None:
            return known
        # In a process of its own: its peak is the training's, and nobody's picture waits for it.
        with self._one_at_a_time:
            workshop = self._workshop.sibling({}, patience_s=0.2)  # nothing is lost with it
            try:
                found = workshop.call("plan", {"config": _as_json(config)}, stop=_Busy(self._database))
            finally:
                workshop.close()
        key = self._key(config)
        rows = [(key, found["step_s"]), (f"{key} loading", found["loading_s"])]
        with self._database.transaction() as connection:
            for name, seconds in rows:
                connection.execute(
                    "insert or replace into measurements (key, created, seconds, memory_gib, total_gib, device) "
                    "values (?, ?, ?, ?, ?, ?)",
                    [name, time.time(), seconds, found["peak_gib"], found["total_gib"], found["device"]],
                )
        measured = self._from_measurement(config)
        assert measured is not None
        return measured

    def _from_jobs(self, config: TrainConfig) -> Estimate | None:
        """From the finished trainings with the same base, size and batch."""
        rows = self._database.rows(
            "select total, step_ms, seconds, images_s, memory_gib, device from jobs where state = 'done' and base = ? "
            "and resolution = ? and batch = ? and step_ms > 0 and total >= ? order by number desc limit ?",
            [*self._kind(config), WORTH, MOST_RECENT],
        )
        if not rows:
            return None
        step_s = median(row["step_ms"] for row in rows) / 1000
        besides = median(
            max(0.0, row["seconds"] - row["images_s"] - row["total"] * row["step_ms"] / 1000) for row in rows
        )
        plural = "s" if len(rows) > 1 else ""
        return Estimate(
            besides + self._drawing_s(config) + step_s * config.run.max_train_steps,
            max((row["memory_gib"] or 0.0 for row in rows), default=0.0),
            _total_gib(str(rows[0]["device"])),
            f"{len(rows)} earlier training{plural} here",
        )

    def _from_measurement(self, config: TrainConfig) -> Estimate | None:
        key = self._key(config)
        row = self._database.row("select * from measurements where key = ?", [key])
        loading = self._database.row("select seconds from measurements where key = ?", [f"{key} loading"])
        if row is None or loading is None:
            return None
        seconds = loading["seconds"] + self._drawing_s(config) + row["seconds"] * config.run.max_train_steps
        return Estimate(seconds, row["memory_gib"], row["total_gib"], "a two-step measurement")

    def _from_running(self, config: TrainConfig) -> Estimate | None:
        """From a training that runs now with the same base, size and batch."""
        kind = self._kind(config)
        like = [one for one in self._board.under_way() if (one.base, one.resolution, one.batch) == kind]
        if not like:
            return None
        seconds = like[0].besides_s + self._drawing_s(config) + like[0].step_s * config.run.max_train_steps
        return Estimate(seconds, like[0].memory_gib, _total_gib(like[0].device), "the training that runs now")

    def _drawing_s(self, config: TrainConfig) -> float:
        """Seconds for the class images; those that earlier trainings of such a thing drew are kept."""
        if not config.prior.uses_images():
            return 0.0
        base, resolution, _ = self._kind(config)
        kept = self._database.row(
            "select coalesce(sum(images), 0) as count from jobs join subjects on subjects.id = jobs.subject_id "
            "where jobs.base = ? and resolution = ? and class_noun = ?",
            [base, resolution, config.data.class_noun or ""],
        )
        pace = self._database.row(
            "select sum(images_s) / sum(images) as seconds from (select images, images_s from jobs where base = ? "
            "and resolution = ? and images > 0 order by number desc limit ?)",
            [base, resolution, MOST_RECENT],
        )
        if kept is None or pace is None or pace["seconds"] is None:
            return 0.0
        return float(pace["seconds"]) * max(0, config.prior.num_class_images - kept["count"])

    def _kind(self, config: TrainConfig) -> tuple[str, int, int]:
        """Base, resolution and batch: what mostly decides how long a step takes."""
        run = config.run
        batch = run.train_batch_size * run.gradient_accumulation_steps
        return config.model.pretrained_model_name_or_path, self._resolution(config), batch

    def _begin(self, config: TrainConfig) -> None:
        key = self._key(config)
        with self._guard:
            if _Busy(self._database).is_set() or self._database.read_only or key in self._measuring | self._failed:
                return
            self._measuring.add(key)

        def go() -> None:
            try:
                self.measure(config)
            except StoppedError:
                pass  # asked for again later, it is measured then
            except StudioError:  # asked for again it would fail again; who wants to know calls ``measure``
                self._failed.add(key)
            finally:
                self._database.close()  # this thread's
                with self._guard:
                    self._measuring.discard(key)

        threading.Thread(target=go, name="estimate", daemon=True).start()

    def _key(self, config: TrainConfig) -> str:
        """What a measurement is remembered under: everything that a step's time and memory may depend on."""
        facts = _as_json(config)
        for name in ("data", "run"):
            facts[name] = {key: value for key, value in facts[name].items() if key not in _NO_MATTER}
        for name in ("instance_data_dir", "instance_prompt", "trigger", "class_noun", "mask_data_dir"):
            facts["data"].pop(name, None)
        digest = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
        return f"plan {config.model.pretrained_model_name_or_path} {self._resolution(config)} {digest} {__version__}"


class _Busy(threading.Event):
    """Set while something is trained."""

    def __init__(self, database: Database):
        super().__init__()
        self._database = database

    def is_set(self) -> bool:
        active = self._database.row(f"select 1 from jobs where state in {ACTIVE} limit 1")
        return active is not None


def _total_gib(device: str) -> float:
    """Memory of a device by its name; 0 where that is not known."""
    if device.lower().startswith("cpu"):
        return memory().total_gib
    return next((gpu.gib for gpu in gpus() if gpu.name == device), 0.0)


def _as_json(config: TrainConfig) -> dict[str, dict[str, object]]:
    """What was given and what a preset says, for another process."""
    facts: dict[str, dict[str, object]] = json.loads(config.model_dump_json(exclude={"preset"}))
    return facts
