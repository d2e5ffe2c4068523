"""One optimizer step: micro-steps, gradients finished, averaged, clipped, applied."""

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from dora_diffusion.config import LossConfig
from dora_diffusion.training.batches import Batches
from dora_diffusion.training.checkpoint import Progress
from dora_diffusion.training.hardware import average_gradients
from dora_diffusion.training.loss import PLAIN, Batch, Predict, denoising_loss
from dora_diffusion.training.optim import stop_gradients_of_text_encoders, text_encoders_held_still
from dora_diffusion.training.prior_prediction import PriorPrediction


@dataclass(frozen=True)
class Losses:
    """Means over the global batch.

    ``instance`` and ``prior`` are the two terms as they are minimised, timestep weights and masks in them, before the
    prior term is multiplied by ``prior_loss_weight``; ``total`` is their sum after it. ``applied``: False where loss or
    gradient was not finite and nothing was moved.
    """

    total: float
    instance: float
    prior: float
    applied: bool = True


class Stepper:
    """Advances a run by one optimizer step at a time.

    Args:
        predict: the base's prediction, with the live adapter.
        scheduler: the noise schedule (add_noise, get_velocity).
        loss: the error, and what timesteps count.
        prior_prediction: adds the prior term's samples where no class images do; None without.
        max_grad_norm: 0 switches clipping off.
        text_encoder_steps: from this step on the text encoders' adapters stay as they are; None: never.

    Every sample's error is a mean of its own and every micro-step of every process holds as many photos, so that the
    loss and its gradient do not depend on how a global batch is split.
    """

    def __init__(
        self,
        predict: Predict,
        scheduler: Any,
        batches: Batches,
        progress: Progress,
        accelerator: Accelerator,
        *,
        accumulation: int,
        prior_loss_weight: float,
        max_grad_norm: float,
        loss: LossConfig = PLAIN,
        prior_prediction: PriorPrediction | None = None,
        text_encoder_steps: int | None = None,
    ):
        self._predict = predict
        self._scheduler = scheduler
        self._batches = batches
        self._progress = progress
        self._accelerator = accelerator
        self._accumulation = accumulation
        self._prior_loss_weight = prior_loss_weight
        self._max_grad_norm = max_grad_norm
        self._loss = loss
        self._prior_prediction = prior_prediction
        self._text_encoder_steps = text_encoder_steps

    def step(self) -> Losses:
        """Do step ``progress.step`` and count it. The gradients stay as they were applied until the next step."""
        adapter = self._progress.adapter
        adapter.zero_grad()
        adapter.prepare()
        stopped = self._text_encoder_steps is not None and self._progress.step >= self._text_encoder_steps
        if stopped:
            stop_gradients_of_text_encoders(adapter)
            self._text_encoders_stand_still()
        losses = [self._micro_step(k) for k in range(self._accumulation)]
        length = self._finish_gradients()
        means = self._accelerator.reduce(torch.stack(losses).mean(0), reduction="mean")
        # The one wait for the device in a step, and before the update: what is not finite must not be applied.
        total, instance, prior, length_found = torch.cat([means, length[None]]).tolist()
        applied = math.isfinite(total) and math.isfinite(length_found)
        with text_encoders_held_still(self._progress.optimizer) if stopped else nullcontext():
            self._update(applied)
        self._progress.step += 1
        if applied and self._progress.ema is not None:
            self._progress.ema.update(self._progress.step)
        return Losses(total, instance, prior, applied)

    def split(self, factor: int) -> None:
        """From now on the same samples of a step in ``factor`` times as many batches, each a ``factor``-th the size."""
        self._batches = self._batches.split(factor)
        self._accumulation *= factor

    def _text_encoders_stand_still(self) -> None:
        """What they make of a prompt need not be computed again."""
        self._batches.text_encoders_stand_still()
        if self._prior_prediction is not None:
            self._prior_prediction.text_encoders_stand_still()

    def _micro_step(self, k: int) -> Tensor:
        """Backpropagate one batch; the detached (total, instance, prior) losses."""
        loss, instance, prior = denoising_loss(
            self._predict, self._scheduler, self._batch(k), self._prior_loss_weight, self._loss
        )
        scaled = loss / self._accumulation
        scaler = self._progress.scaler
        (scaler.scale(scaled) if scaler else scaled).backward()
        return torch.stack([loss.detach(), instance.detach(), prior.detach()])

    def _batch(self, k: int) -> Batch:
        batch = self._batches.batch(self._progress.step, k)
        return batch if self._prior_prediction is None else self._prior_prediction.beside(batch)

    def _finish_gradients(self) -> Tensor:
        """Average, unscale, complete and clip the gradients; their length before the clipping."""
        adapter, scaler = self._progress.adapter, self._progress.scaler
        parameters = [buffer.parameter for buffer in adapter.buffers]
        average_gradients(self._accelerator, [p.grad for p in parameters if p.grad is not None])
        if scaler:
            scaler.unscale_(self._progress.optimizer)
        adapter.finish_gradients()
        return torch.nn.utils.clip_grad_norm_(parameters, self._max_grad_norm or math.inf)

    def _update(self, applied: bool) -> None:
        optimizer, scaler = self._progress.optimizer, self._progress.scaler
        if applied and scaler:
            scaler.step(optimizer)
        elif applied:
            optimizer.step()
        if scaler:
            scaler.update()
        with warnings.catch_warnings():
            if not applied:  # the first of all left out is no mistake in the order of calls
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self._progress.schedule.step()
