"""Losses and gradients are finite."""

import math

from dora_diffusion.errors import UnstableError
from dora_diffusion.formats.checkpoint_folders import checkpoints
from dora_diffusion.training.events import Note
from dora_diffusion.training.sentinels.sentinel import Sentinel
from dora_diffusion.training.stepper import Losses

LIMIT = 3


class Finite(Sentinel):
    """The stepper leaves out a step that is not finite; three in a row will not get better by themselves."""

    def after_step(self, losses: Losses) -> None:
        record = self.progress.record
        if losses.applied or self._is_warm_up(losses):
            record.skipped_in_a_row = 0
            return
        record.skipped += 1
        record.skipped_in_a_row += 1
        what = "loss" if not math.isfinite(losses.total) else "gradient"
        if record.skipped_in_a_row >= LIMIT:
            raise UnstableError(self._message(what))
        message = f"the {what} is not finite; the step is left out ({record.skipped} so far)."
        self.watched.tell(Note(f"Step {self.progress.step}: {message}"))

    def _is_warm_up(self, losses: Losses) -> bool:
        """Whether this is fp16's search for a scale: it starts high and halves it until the gradients fit."""
        scaler = self.progress.scaler
        return scaler is not None and math.isfinite(losses.total) and scaler.get_scale() > 1

    def _message(self, what: str) -> str:
        step = self.progress.step
        kept = checkpoints(self.watched.folder)
        left = f"{kept[-1].name} is the last good checkpoint" if kept else "no checkpoint was written before"
        if self.progress.scaler is not None:
            cause, remedy = "float16 overflows above 65 504", "--mixed_precision bf16"
        else:
            cause = "the learning rate is too high, or a photo or the base is broken"
            remedy = "a lower --learning_rate; dora-diffusion doctor checks the photos"
        return (
            f"The {what} of steps {step - LIMIT + 1} to {step} is not finite, and training stopped: {cause}. "
            f"None of these steps was applied, nothing was written over, and {left}. Start again with {remedy}."
        )
