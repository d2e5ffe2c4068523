"""A run's folder: whose it is, whether the run in it is finished, and what starting again means."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import is_identity, value_at, walk
from dora_diffusion.config.files import dump_yaml, load_yaml
from dora_diffusion.errors import ConfigError, FormatError, TrainingError
from dora_diffusion.formats import SETTINGS_NAME, WEIGHTS_NAME, read_safetensors, write_bytes
from dora_diffusion.formats.checkpoint_folders import checkpoints, drafts, step_of
from dora_diffusion.machine import check_writable

CONFIG, METRICS, STATUS = SETTINGS_NAME, "metrics.jsonl", "status.json"
OURS = (CONFIG, METRICS, STATUS, WEIGHTS_NAME, "README.md", "samples", "logs")
STEP_KEY = "dora_diffusion.step"


class RunFolder:
    """``output_dir`` of a run. Making one writes nothing.

    Raises:
        TrainingError: the folder is not ours, or holds another run.
        MachineError: it cannot be written to.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.path = config.run.output_dir
        check_writable(self.path, 0)
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"output_dir is a file, not a folder: {self.path}.")
        self._refuse_foreign()
        if not config.run.overwrite:
            self._refuse_other_identity()

    def _is_ours(self) -> bool:
        return (self.path / CONFIG).is_file()

    def _refuse_foreign(self) -> None:
        entries = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        # A status alone, or a draft of one of the two first files, is what a process leaves that is killed as it
        # starts.
        known = {STATUS, f".{STATUS}.writing", f".{CONFIG}.writing"}
        if not self._is_ours() and not set(entries) <= known:
            raise TrainingError(
                f"{self.path} is not empty and holds no run of ours (it has {', '.join(sorted(entries)[:3])}); "
                "give another --output_dir."
            )

    def _refuse_other_identity(self) -> None:
        if not self._is_ours():
            return
        try:
            before = load_yaml(TrainConfig, self.path / CONFIG)
        except ConfigError as error:
            raise TrainingError(
                f"{self.path / CONFIG} cannot be read ({error}); give another --output_dir, or --overwrite."
            ) from None
        changes = list(identity_changes(before, self.config))
        if changes:
            raise TrainingError(
                f"{self.path} holds a run with other settings: {'; '.join(changes)}. "
                "Give another --output_dir, or --overwrite to start again."
            )

    def steps_done(self) -> int:
        """The step that the folder's adapter file was written at; 0 without one."""
        try:
            _, metadata = read_safetensors(self.path / WEIGHTS_NAME)
        except FormatError:
            return 0
        return int(metadata.get(STEP_KEY, 0))

    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        return not self.config.run.overwrite and self.steps_done() >= self.config.run.max_train_steps

    def open(self) -> None:
        """Make the folder and write ``config.yaml``; with ``overwrite``, remove what an earlier run left."""
        if self.config.run.overwrite and self._is_ours():
            self._clear()
        self.path.mkdir(parents=True, exist_ok=True)
        # The stored settings must resume the run when started again as they are, not erase it or go back to an old
        # step.
        again = {"overwrite": False, "resume_from_checkpoint": "latest"}
        stored = self.config.model_copy(update={"run": self.config.run.model_copy(update=again)})
        write_bytes(self.path / CONFIG, dump_yaml(stored).encode())

    def _clear(self) -> None:
        """Remove what is ours, ``config.yaml`` last: without it the rest would be taken for somebody else's."""
        folders = [*checkpoints(self.path), *drafts(self.path)]
        for path in [*folders, *(self.path / name for name in reversed(OURS))]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def resume_points(self) -> list[Path]:
        """The checkpoints to go on from, the best first: from the latest back, or the one named alone.

        Raises:
            TrainingError: the one named is not there.
        """
        found = checkpoints(self.path)
        wanted = self.config.run.resume_from_checkpoint
        if wanted == "latest":
            return [path for path in reversed(found) if step_of(path) <= self.config.run.max_train_steps]
        for path in found:
            if path.name == Path(wanted).name:
                return [path]
        names = ", ".join(path.name for path in found) or "none"
        raise TrainingError(f"{self.path} has no checkpoint {wanted!r}; it has: {names}.")

    def drop_metrics_after(self, step: int) -> None:
        """Forget logged steps that will be done again."""
        path = self.path / METRICS
        if path.is_file():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _logged_step(line) <= step]
            write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def identity_changes(before: TrainConfig, now: TrainConfig) -> Iterator[str]:
    """Every identity setting that differs, as "rank is 16 there and 8 now"."""
    for name, field in walk(TrainConfig):
        then, wanted = value_at(before, name), value_at(now, name)
        if is_identity(field) and not _same(then, wanted):
            yield f"{name.rpartition('.')[2]} is {then} there and {wanted} now"


def _same(then: object, wanted: object) -> bool:
    """Equal, or two spellings of one path."""
    if isinstance(then, Path) and isinstance(wanted, Path):
        return then.resolve() == wanted.resolve()
    return then == wanted


def _logged_step(line: str) -> float:
    """The step of a metrics line; a line cut off by a crash counts as after everything."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
