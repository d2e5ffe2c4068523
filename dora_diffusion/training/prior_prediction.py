"""Prior preservation without pictures: the adapted model is held to what the frozen base predicts for the class."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters import Adapter
from dora_diffusion.models import BaseModel
from dora_diffusion.training.batches import is_moving
from dora_diffusion.training.loss import Batch


class PriorPrediction:
    """Puts beside every photo a sample that asks for the class, and gives the base's own answer as its target.

    The added sample has the photo's latents, noise and timestep and the class prompt in place of the photo's; what the
    base predicts for it, without the adapter, is what the adapted model is asked for. It is the output on new data that
    Learning without Forgetting keeps (arXiv:1606.09282), here of the denoiser. While B = 0 the term is 0
    (but for sums over another number of rows).

    Args:
        base: the base that carries ``adapter``.
        scheduler: the noise schedule.
        class_prompt: one for all photos; if each is to have its own (its caption without the trigger), ``_asked`` is
            where they are handed out.
        trained: whether the text encoder carries an adapter too: what the live model is told of the class then changes
            from step to step, and the base's answer stays the one to the untouched text encoder's words.
    """

    def __init__(self, base: BaseModel, adapter: Adapter, scheduler: Any, class_prompt: str, trained: bool):
        self._base = base
        self._adapter = adapter
        self._scheduler = scheduler
        self._class_prompt = class_prompt
        self._trained = trained
        self._still: dict[str, Tensor] | None = None
        with adapter.switched_off():
            encoded = base.encode_prompts([class_prompt])
        # A text encoder that is not trained may be elsewhere than the UNet.
        self._frozen = {name: value.to(base.device) for name, value in encoded.items()}

    def text_encoders_stand_still(self) -> None:
        """From now on the text encoders, trained until here, stay as they are: the class prompt is encoded once more,
        unless a gradient still flows into it.
        """
        if self._trained and self._still is None:
            encoded = self._base.encode_prompts([self._class_prompt])
            self._still = None if is_moving(encoded) else encoded

    def _live(self) -> dict[str, Tensor]:
        """What the adapted model is told of the class."""
        if not self._trained:
            return self._frozen
        return self._still or self._base.encode_prompts([self._class_prompt])

    def beside(self, batch: Batch) -> Batch:
        """``batch`` of photos (b) with the samples of the prior term behind them (2 b).

        Masks are of the subject, so ``loss_weights`` of the added samples are 1.
        """
        target = self._target(batch)
        asked = _asked(batch, self._live())
        return replace(
            batch,
            latents=_twice(batch.latents),
            noise=_twice(batch.noise),
            timesteps=_twice(batch.timesteps),
            is_prior=torch.cat([batch.is_prior, torch.ones_like(batch.is_prior)]),
            conditioning={name: torch.cat([value, asked[name]]) for name, value in batch.conditioning.items()},
            loss_weights=_and_ones(batch.loss_weights),
            prior_target=_twice(target),
        )

    def _target(self, batch: Batch) -> Tensor:
        """(b, c, h, w) float32: what the base says, asked for the class."""
        noisy_latents = self._scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        with self._adapter.switched_off():
            return self._base.predict(noisy_latents, batch.timesteps, _asked(batch, self._frozen)).float()


def _asked(batch: Batch, encoded: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch's conditioning with one prompt's for every sample; what is told of sizes stays."""
    count = len(batch.timesteps)
    return batch.conditioning | {name: row.expand(count, *row.shape[1:]) for name, row in encoded.items()}


def _twice(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows])


def _and_ones(loss_weights: Tensor | None) -> Tensor | None:
    return None if loss_weights is None else torch.cat([loss_weights, torch.ones_like(loss_weights)])
