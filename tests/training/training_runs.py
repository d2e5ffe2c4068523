"""Small training runs: a few seconds each, on the embedded base."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters import merged_weights, modules_weights
from dora_diffusion.config import (
    AdapterConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PriorConfig,
    RunConfig,
    TrainConfig,
)
from dora_diffusion.formats import WEIGHTS_NAME, load_adapter, read_safetensors
from dora_diffusion.formats.checkpoint_folders import checkpoints, step_of
from dora_diffusion.models import load_base
from dora_diffusion.training import Event, TrainResult, train
from dora_diffusion.training.events import StepDone
from dora_diffusion.training.listeners import MetricsFile, everyone
from dora_diffusion.training.run_folder import METRICS

Settings = Mapping[str, Any]
PHOTOS = Path(__file__).parents[2] / "samples" / "subjects" / "teapot"


class Killed(BaseException):
    """What a test raises where a run is to end without a chance to clean up: no ``except Exception`` catches it."""


class Heard(list[Event]):
    """A listener that keeps everything it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self if isinstance(event, kind)]


def small_config(
    output_dir: Path,
    steps: int = 2,
    *,
    model: Settings | None = None,
    data: Settings | None = None,
    adapter: Settings | None = None,
    prior: Settings | None = None,
    loss: Settings | None = None,
    optim: Settings | None = None,
    run: Settings | None = None,
) -> TrainConfig:
    """A run of ``steps`` at 64 pixels on the teapot's photos; each argument overrides one group of settings."""
    # With a checkpoint at the last step, as of runs that divide evenly.
    of_run = {"output_dir": output_dir, "max_train_steps": steps, "checkpointing_steps": steps, "cpu": True}
    return TrainConfig(
        model=ModelConfig(**(model or {})),
        data=DataConfig(**{"instance_data_dir": PHOTOS, "class_noun": "teapot", "resolution": 64, **(data or {})}),
        adapter=AdapterConfig(**{"rank": 4, **(adapter or {})}),
        prior=PriorConfig(**(prior or {})),
        loss=LossConfig(**(loss or {})),
        optim=OptimConfig(**{"learning_rate": 1e-3, **(optim or {})}),
        run=RunConfig(**{**of_run, **(run or {})}),
    )


def small_prior(folder: Path, count: int = 2) -> dict[str, Any]:
    """Prior preservation with a few quickly drawn class images, kept in ``folder``."""
    return {
        "with_prior_preservation": True,
        "num_class_images": count,
        "class_images_steps": 2,
        "class_data_dir": folder,
    }


PREDICTION = {"with_prior_preservation": True, "prior_kind": "prediction"}


def run_it(
    config: TrainConfig, on_event: Callable[[Event], None] | None = None, stop_after: int | None = None
) -> TrainResult:
    """Train as the command line does, with a metrics file; asked to stop once step ``stop_after`` is done."""
    steps_done: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, StepDone):
            steps_done.append(event.step)
        if on_event is not None:
            on_event(event)

    listeners = everyone(MetricsFile(config.run.output_dir), watch)
    return train(config, listeners, lambda: stop_after is not None and steps_done[-1] >= stop_after)


def adapter_bytes(folder: Path) -> bytes:
    """The run's adapter file."""
    return (folder / WEIGHTS_NAME).read_bytes()


def checkpoint_bytes(folder: Path, step: int) -> dict[str, bytes]:
    """Every file of the checkpoint of ``step``, or of the run's end, by its name."""
    (found,) = [path for path in checkpoints(folder) if step_of(path) == step]
    return {path.name: path.read_bytes() for path in sorted(found.iterdir())}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``."""
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file under ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    return read_safetensors(file)[0]


def weight_changes(folder: Path) -> dict[str, Tensor]:
    """What a run's adapter adds to each weight of the base: ``W' - W0``, float32."""
    state = load_adapter(folder)
    base = load_base("toybox")
    present = {base.layer_name(c, path): m for c, root in base.adaptable().items() for path, m in root.named_modules()}
    bases = modules_weights({name: ("", "", present[name]) for name in state.layers})
    return {name: weight - bases[name].detach().float() for name, weight in merged_weights(state, bases)}


def relative_difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """``|ours - theirs| / |theirs|`` over all tensors together."""
    assert ours.keys() == theirs.keys()
    difference = torch.cat(
        [(ours[name].detach().double() - theirs[name].detach().double()).flatten() for name in theirs]
    )
    size = torch.cat([value.detach().double().flatten() for value in theirs.values()])
    return float(difference.norm() / size.norm())
