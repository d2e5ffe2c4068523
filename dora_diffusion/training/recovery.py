"""Out of memory in a step: the settings to change, in plain words; or the next smaller one, and the step done again."""

import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import OutOfMemoryError
from dora_diffusion.inference.out_of_memory import is_out_of_memory, on_device
from dora_diffusion.training import remedies
from dora_diffusion.training.checkpoint import Progress
from dora_diffusion.training.events import Note, OnEvent
from dora_diffusion.training.stepper import Losses, Stepper


class Recovery:
    """Takes a run's steps, and knows what to do when one runs out of memory.

    With ``--auto_memory`` the step is done again from its start, exactly, with the next smaller setting that keeps the
    arithmetic. Forward and backward move nothing but gradients, which every step clears. Samples are numbered through
    the run, so smaller batches hold the same ones: the result is that of a run that had the smaller setting from the
    start, up to the order of sums. What was changed is kept in the record, and a resumed run goes on with it.

    Args:
        recompute: switches gradient checkpointing on.
        on_change: called when a setting was changed.
        processes: of the run; several cannot do a step again, as the others wait inside of it.
    """

    def __init__(
        self,
        config: TrainConfig,
        stepper: Stepper,
        progress: Progress,
        recompute: Callable[[], None],
        on_change: Callable[[], None],
        processes: int,
        tell: OnEvent,
    ):
        self._config, self._stepper, self._progress, self._tell = config, stepper, progress, tell
        self._recompute, self._on_change = recompute, on_change
        self._alone = processes == 1
        self._update_began = False
        self._fresh = _FreshOptimizer(progress) if config.run.auto_memory and not progress.optimizer.state else None
        progress.optimizer.register_step_pre_hook(self._note_update)
        if progress.record.recompute:
            recompute()
        if progress.record.split > 1:
            stepper.split(progress.record.split)

    def step(self) -> Losses:
        """Do step ``progress.step``.

        Raises:
            OutOfMemoryError: the memory does not suffice; the message lists what to change, the cheapest first.
        """
        while True:
            self._update_began = False
            try:
                losses = self._stepper.step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                if self._update_began:
                    self._fresh = None
                return losses
            # Not inside the handler: the traceback would hold on to the step's tensors.
            self._make_room()

    def _note_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._update_began = True

    def _make_room(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        change = self._next_change() if self._config.run.auto_memory and self._alone else None
        if change is None or not self._undo():
            raise OutOfMemoryError(self._message())
        self._on_change()
        self._tell(Note(f"Step {self._progress.step + 1} ran out of memory and is done again; {change()}"))

    def _undo(self) -> bool:
        """Put everything back to the start of the step; False where an update had begun that cannot be taken back.

        An optimizer asks for its memory in its first update, and that one can: nothing it had is lost.
        """
        scaler = self._progress.scaler
        if scaler:
            scaler.update(scaler.get_scale())  # forget that these gradients were unscaled; the scale itself stays
        if self._update_began and self._fresh is not None:
            self._fresh.put_back()
        return not self._update_began or self._fresh is not None

    def _next_change(self) -> Callable[[], str] | None:
        """The cheapest change that is left: something to do, that says what it did."""
        record, run = self._progress.record, self._config.run
        if not (run.gradient_checkpointing or record.recompute):
            return self._turn_recompute_on
        return self._split if run.train_batch_size // record.split > 1 else None

    def _turn_recompute_on(self) -> str:
        self._recompute()
        self._progress.record.recompute = True
        return "from now on with --gradient_checkpointing (slower, the same result)."

    def _split(self) -> str:
        record, run = self._progress.record, self._config.run
        factor = _smallest_factor(run.train_batch_size // record.split)
        self._stepper.split(factor)
        record.split *= factor
        return f"from now on with {_batches(run, record.split)} (slower, the same result)."

    def _message(self) -> str:
        device = self._progress.adapter.buffers[0].parameter.device
        where = f"Out of memory in step {self._progress.step + 1}{on_device(device)}"
        helps = list(self._remedies())
        helped = sum("same result" in change for change in helps)
        auto = " --auto_memory does the ones with the same result by itself." if helped and self._alone else ""
        return (
            f"{where}. What helps, in order of cost: {'; '.join(helps)}.{auto} With --gradient_checkpointing or "
            "--auto_memory the same command goes on from the last checkpoint; the others make another run, which needs "
            "another --output_dir, or --overwrite."
        )

    def _remedies(self) -> Iterator[str]:
        config, record = self._config, self._progress.record
        run = config.run
        if not (run.gradient_checkpointing or record.recompute):
            yield "--gradient_checkpointing (slower, the same result)"
        batch = run.train_batch_size // record.split
        if batch > 1:
            yield f"{_batches(run, record.split * _smallest_factor(batch))} (slower, the same result)"
        yield remedies.lower_resolution(config)
        yield from remedies.less_to_train(config)
        yield from remedies.lower_precision(config)


class _FreshOptimizer:
    """Parameters, their average, and an optimizer without state, as before its first update. Kept on the CPU."""

    def __init__(self, progress: Progress):
        self._optimizer = progress.optimizer
        averages = progress.ema.averages if progress.ema is not None else []
        self._moving = [buffer.parameter.detach() for buffer in progress.adapter.buffers] + averages
        self._values = [tensor.to("cpu", copy=True) for tensor in self._moving]
        self._groups = [_plain(group) for group in self._optimizer.param_groups]

    @torch.no_grad()
    def put_back(self) -> None:
        """Take the update back."""
        for tensor, value in zip(self._moving, self._values, strict=True):
            tensor.copy_(value)
        self._optimizer.state.clear()
        for group, plain in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update(copy.deepcopy(plain))


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({key: value for key, value in group.items() if key != "params"})


def _batches(run: Any, split: int) -> str:
    batch, accumulation = run.train_batch_size // split, run.gradient_accumulation_steps * split
    return f"--train_batch_size {batch} --gradient_accumulation_steps {accumulation}"


def _smallest_factor(number: int) -> int:
    """The smallest prime that divides ``number``, which is above 1."""
    return next(factor for factor in range(2, number + 1) if number % factor == 0)
