"""What listens to a run: a progress bar, the metrics file, the status file."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dora_diffusion.training.events import (
    ClassImages,
    Event,
    Finished,
    Note,
    OnEvent,
    Planned,
    PreviewReady,
    RunStarted,
    Saved,
    StepDone,
)
from dora_diffusion.training.run_folder import CONFIG, METRICS, STATUS


def everyone(*listeners: OnEvent) -> OnEvent:
    """One listener that tells several."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


class ProgressBar:
    """Steps, loss and time left on the terminal; plain lines now and then where there is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._doing = ""
        self._began = False

    def __call__(self, event: Event) -> None:
        match event:
            case Note(message):
                self._say(message)
            case ClassImages(done, total):
                self._turn("class images", done, total)
            case RunStarted(_, step, total, facts):
                self._began = True
                for name, fact in facts.items():
                    self._say(f"{name:>10}: {fact}")
                self._turn("training", step, total)
            case Planned():
                self._say(f"{'plan':>10}: {event}")
            case StepDone():
                self._turn("training", event.step, event.max_train_steps, loss=f"{event.loss:.4f}")
            case PreviewReady(step, paths):
                self._say(f"step {step}: {len(paths)} previews in {paths[0].parent}")
            case Saved():
                pass
            case Finished():
                self._end(event)

    def _end(self, event: Finished) -> None:
        self.close()
        if event.stopped:
            self._say(f"Stopped after {event.step} steps: {event.path} (the same command goes on)")
        elif self._began:
            self._say(f"Done after {event.step} steps: {event.path}")
        else:
            self._say(f"Nothing was left to do: {event.path} is of step {event.step}.")

    def _turn(self, what: str, done: int, total: int, **postfix: str) -> None:
        if self._bar is None or self._doing != what:
            self.close()
            self._doing = what
            interval = 0.1 if sys.stderr.isatty() else 10.0
            self._bar = tqdm(
                total=total, initial=done, desc=what, mininterval=interval, maxinterval=interval, dynamic_ncols=True
            )
        self._bar.set_postfix(postfix, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """End the bar, so that what is printed next starts on a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)


class MetricsFile:
    """``metrics.jsonl``: one JSON object a step, flushed."""

    def __init__(self, folder: Path):
        self._path = folder / METRICS

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            row = {
                "step": event.step,
                "loss": _number(event.loss),
                "instance_loss": _number(event.instance_loss),
                "prior_loss": _number(event.prior_loss),
                "lr": event.lr,
                "step_ms": round(event.step_ms, 2),
            }
            if not event.applied:
                row["applied"] = False
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


class StatusFile:
    """``status.json``: what another process needs to show the run; replaced atomically."""

    def __init__(self, folder: Path, max_train_steps: int):
        self._path = folder / STATUS
        self._status: dict[str, Any] = {
            "state": "preparing",
            "step": 0,
            "max_train_steps": max_train_steps,
            "loss": None,
            "seconds_left": None,
            "message": "",
            "class_images": None,
            "pid": os.getpid(),
        }

    def __call__(self, event: Event) -> None:
        match event:
            case Note(message):
                self.say(message=message)
            case ClassImages(done, total):
                counted = {"done": done, "total": total}
                self.say(message=f"making class images: {done} of {total}", class_images=counted)
            case RunStarted():
                self.say(state="training", step=event.step, message="", class_images=None)
            case StepDone():
                left = round(event.seconds_left, 1)
                self.say(state="training", step=event.step, loss=_number(event.loss), seconds_left=left)
            case Saved():
                self.say(state="training")
            case Finished(step, _, stopped):
                self.say(state="stopped" if stopped else "done", step=step, seconds_left=0)

    def failed(self, message: str, **facts: Any) -> None:
        """Say why the run ended, and what else is known of that.

        In a folder that was refused because it is somebody else's, nothing is written.
        """
        folder = self._path.parent
        ours = self._path.exists() or (folder / CONFIG).is_file()
        if folder.is_dir() and (ours or not any(folder.iterdir())):
            self.say(state="failed", message=message, **facts)

    def say(self, **changes: Any) -> None:
        """Change what the file says, or add to it."""
        self._status.update(changes)
        if self._path.parent.is_dir():
            # Renamed into place so that no reader sees half of it; not flushed to the disk, as it is written every
            # step.
            fresh = self._path.with_name(f".{self._path.name}.writing")
            fresh.write_text(json.dumps(self._status), encoding="utf-8")
            fresh.replace(self._path)


def _number(value: float | None) -> float | None:
    """``value`` as JSON can hold it: what is not finite is null."""
    return value if value is not None and math.isfinite(value) else None
