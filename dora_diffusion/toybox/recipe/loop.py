"""The training loop that the stages share: how far it is, how fast it learns, averaged weights, records."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from dora_diffusion.errors import ConfigError, TrainingError
from dora_diffusion.toybox.recipe.processes import agreed, average_gradients, here
from dora_diffusion.toybox.recipe.settings import LoopSettings

Log = Callable[[str], None]

STATE_FILE = "state.json"
METRICS_FILE = "metrics.jsonl"
_NO_STATE: Mapping[str, Any] = {"steps": 0, "images": 0, "shards": 0, "runs": [], "figures": {}}
_KEY = 1_000_003  # a prime: seeds of different things lie far apart
_OWN = 77_551  # no number of a shard or a step that comes into question
_AGREE_EVERY = 10  # steps between two looks at the first process's clock, where there are several


class Clock:
    """How far a run is: by its steps, or, where minutes were given, by whichever runs out first."""

    def __init__(self, settings: LoopSettings, minutes: float | None):
        """Raises: ConfigError: the minutes leave no time to train."""
        if minutes is not None and minutes <= settings.finish_minutes:
            raise ConfigError(
                f"minutes must be more than finish_minutes ({settings.finish_minutes:g}, kept for the last "
                f"measurements and savings), got {minutes:g}."
            )
        self.steps = settings.steps
        self.began = self._loop_began = time.monotonic()
        self._minutes = minutes
        self._end = self.began + 60 * (minutes - settings.finish_minutes) if minutes is not None else math.inf
        self._time_share = 0.0
        self._look_every = _AGREE_EVERY if here().count > 1 else 1

    @property
    def law(self) -> str:
        """What the learning rate follows, for the log."""
        if self._minutes is None:
            return f"the learning rate follows the {self.steps} steps"
        return f"the learning rate follows {self.steps} steps or {self._minutes:g} minutes, whichever are over first"

    def start_loop(self) -> None:
        """Count the time from here: what was before is not training."""
        self._loop_began = time.monotonic()

    def share(self, step: int) -> float:
        """0 at the start, 1 or more when the run is over: the same in all processes, which ask for every step."""
        if math.isinf(self._end):
            return step / self.steps
        if step % self._look_every == 0:
            spent = time.monotonic() - self._loop_began
            self._time_share = agreed(spent / max(1e-6, self._end - self._loop_began))
        return max(step / self.steps, self._time_share)

    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self.began

    def filling_may_go_on(self, share: float) -> bool:
        """Whether less than ``share`` of the minutes given is spent: the same in all processes, which all ask."""
        return bool(agreed(self._minutes is None or self.seconds() < 60 * self._minutes * share))


def learning_rate(settings: LoopSettings, step: int, share: float) -> float:
    """A straight rise over ``warmup`` steps, then the highest rate, then half a cosine over the last ``decay`` of the
    run; ``share`` of it is over.
    """
    rise = min(1.0, (step + 1) / max(1, settings.warmup))
    fallen = min(1.0, max(0.0, share - (1 - settings.decay)) / settings.decay) if settings.decay else 0.0
    low = settings.final_rate
    return settings.learning_rate * rise * (low + (1 - low) * (0.5 + 0.5 * math.cos(math.pi * fallen)))


class Ema:
    """Averaged copies of parameters; the average follows faster in the beginning."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float):
        self._parameters = list(parameters)
        self._decay = decay
        self._updates = 0
        self._average = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the parameters."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 20))
        torch._foreach_lerp_(self._average, [parameter.detach() for parameter in self._parameters], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters hold the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self._average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)


class Optimizer:
    """AdamW (arXiv:1711.05101) with clipped gradients, fused on a GPU; several processes average their gradients.

    Args:
        slow: further parameters, which learn at ``slow_share`` of the rate.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        settings: LoopSettings,
        slow: Iterable[nn.Parameter] = (),
        slow_share: float = 1.0,
    ):
        self._settings = settings
        shares = [(list(parameters), 1.0), (list(slow), slow_share)]
        self._parameters = [parameter for group, _ in shares for parameter in group]
        self._adamw = torch.optim.AdamW(
            [{"params": group, "share": share} for group, share in shares if group],
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=self._parameters[0].is_cuda,
        )

    def step(self, loss: Tensor, rate: float) -> None:
        """One step down the gradient of ``loss``."""
        for group in self._adamw.param_groups:
            group["lr"] = rate * group["share"]
        self._adamw.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self._parameters)
        nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        self._adamw.step()


class Records:
    """``metrics.jsonl`` and ``state.json`` of a stage's folder; of several processes only the first writes them.

    ``state`` is what lay behind the weights when the run began: steps, pictures, shards used up, and every run before.
    """

    def __init__(self, folder: Path, settings: BaseModel, device: str, log: Log):
        self._folder, self._log = folder, log
        self._run = {"device": device_name(device), "settings": settings.model_dump(mode="json")}
        folder.mkdir(parents=True, exist_ok=True)
        self.state = read_state(folder)

    def metrics(self, step: int, figures: Mapping[str, Any]) -> None:
        """Add one line, and tell it; ``step`` counts from this run's start.

        Raises:
            TrainingError: a figure is not finite: the run has gone wrong.
        """
        line = {"step": self.state["steps"] + step, **figures}
        for name, value in line.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} at step {line['step']}; the last saved weights in {self._folder} are as they "
                    "were. Go on from them with a lower learning_rate."
                )
        with (self._folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._log(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))

    def saved(self, steps: int, batch: int, shards: int, clock: Clock, figures: Mapping[str, Any]) -> None:
        """Write down what lies behind the weights that were just saved, and what they reach.

        Args:
            batch: pictures a step of one process; the state counts those of all.
            shards: used up by all.
        """
        self.metrics(steps, figures)
        processes = here().count
        run = {"steps": steps, "batch": batch, "minutes": round(clock.seconds() / 60, 2), **self._run}
        if processes > 1:
            run["processes"] = processes
        state = {
            "steps": self.state["steps"] + steps,
            "images": self.state["images"] + steps * batch * processes,
            "shards": shards,
            "runs": [*self.state["runs"], run],
            "figures": dict(figures),
        }
        (self._folder / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """What ``folder``'s stage has behind it; zeros where it never ran.

    Raises:
        TrainingError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return dict(_NO_STATE)
    try:
        return {**_NO_STATE, **json.loads(path.read_text(encoding="utf-8"))}
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{path} is damaged ({error}). Delete {folder} to start the stage anew.") from None


def train_steps(
    settings: LoopSettings,
    clock: Clock,
    records: Records,
    step: Callable[[float, float], dict[str, Tensor]],
    after: Callable[[int], None],
    save: Callable[[int], None],
) -> int:
    """Take steps until the clock says that the run is over; returns how many.

    Args:
        step: takes the learning rate and the share of the run that is over; returns losses to be logged.
        after: told the number of steps done, after each.
        save: the same, every few minutes; of several processes only the first saves and logs, its own losses.
    """
    place = here()
    done = counted = 0
    began = saved = time.monotonic()
    while (share := clock.share(done)) < 1:
        rate = learning_rate(settings, done, share)
        losses = step(rate, share)
        done += 1
        after(done)
        if not place.is_first:
            continue
        if done % settings.log_every == 0:
            figures = {name: value.item() for name, value in losses.items()}  # waits for the GPU: the time is true
            now = time.monotonic()
            speed = round((done - counted) * settings.batch * place.count / (now - began), 1)
            records.metrics(done, {**figures, "lr": rate, "images_per_second": speed})
            began, counted = now, done
        if time.monotonic() - saved > 60 * settings.save_minutes:
            save(done)
            began, counted, saved = time.monotonic(), done, time.monotonic()
    return done


def seeded(seed: int, *numbers: int) -> int:
    """A seed for one purpose: far from those of other ``numbers``."""
    for number in numbers:
        seed = (seed * _KEY + number + 1) % (2**62)
    return seed


def own_seed(seed: int) -> int:
    """A seed for what differs between the processes, batches and noise; the first process's is ``seed`` itself."""
    rank = here().rank
    return seeded(seed, _OWN, rank) if rank else seed


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Inside, fresh weights are a function of ``seed``; torch's global random state stays what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def device_name(device: str) -> str:
    """What the card calls the machine."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "CPU"


def set_up(device: str) -> None:
    """Let a GPU multiply float32 matrices as TF32: what is left in float32 is not that exact itself."""
    if torch.device(device).type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True


def half_precision(device: str) -> AbstractContextManager[Any]:
    """bfloat16 autocast on a GPU, nothing on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if torch.device(device).type == "cuda" else nullcontext()


def compiled(module: Any, settings: LoopSettings, device: str) -> Any:
    """``module`` through torch.compile where that is wanted and there is a GPU."""
    return torch.compile(module) if settings.compile and torch.device(device).type == "cuda" else module
