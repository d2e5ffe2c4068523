"""``python -m dora_diffusion.studio.trainer CONFIG``: one training, as a process of its own.

Beside the run's folder it keeps what the studio shows: the adapter of every checkpoint, the likeness of every preview,
and, when it fails, why in one word.
"""

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import DataError, DoraError
from dora_diffusion.machine import GIB, hush_libraries, stop_on_signals
from dora_diffusion.studio.failures import code_of
from dora_diffusion.studio.job_files import LIKENESS, adapter_path, run_folder
from dora_diffusion.studio.process import say_alive, stand_back


def main(arguments: list[str]) -> int:
    """Train; returns the exit status: 0 also for a run that was asked to stop, 2 for what a user can mend, else 1."""
    say_alive()
    hush_libraries()
    config_file = Path(arguments[0])
    with stop_on_signals() as stop:
        return train_job(config_file, stop.is_set)


def train_job(config_file: Path, should_stop: Callable[[], bool]) -> int:
    """Train the job of ``config_file``, whose folder it lies in; the exit status as for ``main``."""
    from dora_diffusion.inference.out_of_memory import is_out_of_memory
    from dora_diffusion.training import train
    from dora_diffusion.training.listeners import MetricsFile, ProgressBar, StatusFile, everyone

    job = config_file.parent
    status, bar = StatusFile(run_folder(job), 0), ProgressBar()
    try:
        config = load_yaml(TrainConfig, config_file)
        status.say(max_train_steps=config.run.max_train_steps)
        keeper = Keeper(config, job, status.say, should_stop)
        train(config, everyone(bar, MetricsFile(run_folder(job)), status, keeper), keeper.should_stop)
    except Exception as error:
        code = "out_of_memory" if is_out_of_memory(error) else code_of(error)
        is_known = isinstance(error, DoraError) or code != "broken"
        broke = f"The trainer broke ({type(error).__name__}: {str(error)[:200]}); its log says where."
        status.failed(str(error) if is_known else broke, code=code)
        if is_known:
            print(f"Error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        return 2 if is_known else 1
    finally:
        bar.close()
    return 0


class Keeper:
    """Listens to a run for the studio.

    Args:
        say: adds to what the run's status says.
    """

    def __init__(self, config: TrainConfig, job: Path, say: Callable[..., None], should_stop: Callable[[], bool]):
        self._config, self._job, self._say, self._should_stop = config, job, say, should_stop
        self._measure = _memory_meter(config)
        self._eye: Any = None
        self._began_at = 0
        self._is_leaving = False
        self._stepped_at, self._preview_s = 0.0, 0.0
        self._first_image: tuple[int, float] | None = None

    def __call__(self, event: Any) -> None:
        from dora_diffusion.training.events import ClassImages, PreviewReady, RunStarted, Saved, Saving, StepDone

        match event:
            case ClassImages(done, _):
                self._say(images_drawn=self._images_drawn(done))
            case RunStarted(_, step, _, _):
                self._began_at = step
                self._say(**self._measure())
            case StepDone():
                self._is_leaving = event.step >= event.max_train_steps
                self._stepped_at = time.monotonic()
                left = round(event.seconds_left + self._preview_s * self._previews_left(event.step), 1)
                self._say(step_ms=round(event.step_ms, 1), seconds_left=left, **self._measure(), **self._leaving())
            case PreviewReady(step, paths):
                self._look(step, paths)
                self._preview_s = time.monotonic() - self._stepped_at
            case Saving(step, write_adapter):
                self._keep(step, write_adapter)
            case Saved():
                self._say(**self._leaving())

    def should_stop(self) -> bool:
        """Whether somebody asked for it; from then on the run is being saved."""
        asked = self._should_stop()
        if asked and not self._is_leaving:
            self._is_leaving = True
            self._say(**self._leaving())
        return asked

    def _images_drawn(self, done: int) -> dict[str, float]:
        """How many class images this run has drawn itself, and in what time: a later run finds them there."""
        now = time.monotonic()
        if self._first_image is None:
            self._first_image = done, now
        there, since = self._first_image
        return {"count": done - there, "seconds": round(now - since, 2)}

    def _previews_left(self, step: int) -> int:
        """How often pictures will be drawn after a step, with that of the end; they take long in comparison."""
        run = self._config.run
        if not run.validation_prompt:
            return 0
        every, total = run.validation_steps, run.max_train_steps
        at_end = 1 if step < total and (not every or total % every) else 0
        return (total // every - step // every if every else 0) + at_end

    def _leaving(self) -> dict[str, str]:
        return {"state": "saving"} if self._is_leaving else {}

    def _keep(self, step: int, write_adapter: Callable[[Path], None]) -> None:
        file = adapter_path(self._job, step)
        file.parent.mkdir(exist_ok=True, mode=0o700)
        write_adapter(file)

    def _look(self, step: int, paths: tuple[Path, ...]) -> None:
        """Let the eye look at previews; where it cannot, there is no likeness, and the training goes on."""
        from dora_diffusion.studio.likeness import PreviewEye

        if self._eye is None:
            try:
                self._eye = PreviewEye(self._config, self._job / LIKENESS, self._began_at)
            except DataError as error:
                print(f"No likeness: {error}", file=sys.stderr)
                self._eye = False
        if self._eye:
            self._eye.look(step, paths)


def _memory_meter(config: TrainConfig) -> Callable[[], dict[str, Any]]:
    """What tells the device and the memory that the run has taken at most, in GiB."""
    import torch

    if torch.cuda.is_available() and not config.run.cpu:
        name = torch.cuda.get_device_name()
        return lambda: {"device": name, "memory_gib": round(torch.cuda.max_memory_allocated() / GIB, 2)}

    import resource

    unit = 1024 if sys.platform != "darwin" else 1  # Linux counts in KiB, macOS in bytes
    return lambda: {
        "device": "CPU",
        "memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2),
    }


if __name__ == "__main__":
    stand_back()
    raise SystemExit(main(sys.argv[1:]))
