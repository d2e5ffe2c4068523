"""Batches as a function of (seed, step): nothing is iterated, so nothing has to be restored."""

from collections.abc import Sequence
from copy import copy
from typing import TypeVar

import torch
from torch import Tensor

from dora_diffusion.config import LossConfig
from dora_diffusion.data.latents import Latents
from dora_diffusion.data.views import View
from dora_diffusion.models import BaseModel
from dora_diffusion.training.loss import PLAIN, Batch
from dora_diffusion.training.noise import noise_for, timestep_range, timesteps_for

# Encodings kept on the device: beyond, all go to the main memory. One of SDXL's has 0.6 MB.
ON_DEVICE = 64
# Encodings kept of captions that are drawn (shuffled), or drawn together, on the CPU; the oldest goes first.
OF_DRAWN = 512
_AT_ONCE = 16

Encoding = dict[str, Tensor]  # of one prompt: no axis of samples
Key = TypeVar("Key")


class Prompts:
    """The conditioning of prompts; each is encoded once unless the text encoder is trained.

    While it is, the prompts of a batch are encoded together. From ``stand_still`` on, what no gradient flows into is
    kept of the same prompts together: those are the same bits, where a prompt alone might be rounded otherwise.

    Args:
        known: the prompts that are sure to come: encoded now, unless the text encoder is trained. Others are encoded
            when they come, one by one, so that an encoding is a function of its prompt alone.
        trained: gradients are to flow into the text encoder.
    """

    def __init__(self, base: BaseModel, known: Sequence[str], trained: bool):
        self._base = base
        self._trained = trained
        self._known: dict[str, Encoding] = {}
        self._drawn: dict[str, Encoding] = {}
        self._together: dict[tuple[str, ...], dict[str, Tensor]] | None = None
        if not trained:
            place = base.device if len(known) <= ON_DEVICE else torch.device("cpu")
            for start in range(0, len(known), _AT_ONCE):
                self._known |= self._encode(list(known[start : start + _AT_ONCE]), place)

    @torch.no_grad()
    def _encode(self, prompts: list[str], place: torch.device) -> dict[str, Encoding]:
        encoded = {name: value.to(place) for name, value in self._base.encode_prompts(prompts).items()}
        return {prompt: {name: value[k] for name, value in encoded.items()} for k, prompt in enumerate(prompts)}

    def conditioning(self, prompts: Sequence[str], framing: Tensor) -> dict[str, Tensor]:
        """Per sample its prompt's, and what is told of sizes.

        Args:
            framing: (b, 6), as ``BaseModel.framing`` takes it.
        """
        distinct = list(dict.fromkeys(prompts))
        rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self._base.device)
        encoded = self._from_trained(distinct) if self._trained else self._from_kept(distinct)
        return {name: value[rows] for name, value in encoded.items()} | self._base.framing(framing.to(rows.device))

    def stand_still(self) -> None:
        """From now on the text encoder, trained until here, stays as it is."""
        if self._together is None:
            self._together = {}

    def _from_trained(self, prompts: list[str]) -> dict[str, Tensor]:
        if self._together is None:
            return self._base.encode_prompts(prompts)
        key = tuple(prompts)
        if key in self._together:
            return {name: value.to(self._base.device) for name, value in self._together[key].items()}
        encoded = self._base.encode_prompts(prompts)
        if not is_moving(encoded):
            _keep(self._together, key, {name: value.cpu() for name, value in encoded.items()})
        return encoded

    def _from_kept(self, prompts: list[str]) -> dict[str, Tensor]:
        found = [self._known.get(prompt) or self._of_drawn(prompt) for prompt in prompts]
        return {name: torch.stack([one[name] for one in found]).to(self._base.device) for name in found[0]}

    def _of_drawn(self, prompt: str) -> Encoding:
        if prompt not in self._drawn:
            _keep(self._drawn, prompt, self._encode([prompt], torch.device("cpu"))[prompt])
        return self._drawn[prompt]


def is_moving(encoded: dict[str, Tensor]) -> bool:
    """Whether a gradient flows into what encodes prompts, or might: without gradients there is no telling."""
    return not torch.is_grad_enabled() or any(value.requires_grad for value in encoded.values())


def _keep(kept: dict[Key, dict[str, Tensor]], key: Key, encoded: dict[str, Tensor]) -> None:
    """Add an entry; beyond ``OF_DRAWN`` of them the oldest goes."""
    if len(kept) >= OF_DRAWN:
        kept.pop(next(iter(kept)))
    kept[key] = encoded


def fixed_captions(sources: Sequence[Latents]) -> list[str]:
    """What the pictures of ``sources`` are called, as far as it can be told before anything is drawn; each once."""
    return list(dict.fromkeys(text for source in sources for text in source.photos.fixed_captions()))


class Batches:
    """Draws the batch of any step.

    Samples are numbered through the whole run: optimizer step, then micro-step, then process, then place in the batch.
    Photo, crop, caption, latent, noise and timestep of a sample depend on its number and the seed alone.

    Args:
        instance, prior: latents of the photos and of the class images (None without prior preservation).
        batch_size: photos of one process and micro-step.
        num_train_timesteps: of the model's schedule.
        loss: how noise and timesteps are drawn.

    Raises:
        ConfigError: the settings ask for timesteps that the schedule has not.
    """

    def __init__(
        self,
        instance: Latents,
        prior: Latents | None,
        prompts: Prompts,
        *,
        seed: int,
        batch_size: int,
        accumulation: int,
        num_train_timesteps: int,
        loss: LossConfig = PLAIN,
        process: int = 0,
        processes: int = 1,
        device: torch.device,
    ):
        self._sources = [("instance", instance)] if prior is None else [("instance", instance), ("class", prior)]
        self._prompts = prompts
        self._seed = seed
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._process, self._processes = process, processes
        self._noise_offset = loss.noise_offset
        self._timesteps = timestep_range(loss, num_train_timesteps, self.global_batch)
        self._device = device

    @property
    def global_batch(self) -> int:
        """Photos in one optimizer step over all processes."""
        return self._batch_size * self._accumulation * self._processes

    def fixed_captions(self) -> list[str]:
        """The prompts that can be told before anything is drawn, each once."""
        return fixed_captions([source for _, source in self._sources])

    def text_encoders_stand_still(self) -> None:
        """From now on nothing moves the text encoders any more: see ``Prompts.stand_still``."""
        self._prompts.stand_still()

    def split(self, factor: int) -> "Batches":
        """The same samples of every step, in ``factor`` times as many batches, each a ``factor``-th the size."""
        parts = copy(self)
        parts._batch_size, parts._accumulation = self._batch_size // factor, self._accumulation * factor
        return parts

    def batch(self, step: int, micro_step: int) -> Batch:
        """The batch of optimizer step ``step`` (from 0) and micro-step ``micro_step`` for this process."""
        first = step * self.global_batch + (micro_step * self._processes + self._process) * self._batch_size
        samples = list(range(first, first + self._batch_size))
        seen = [(source, source.views(self._seed, samples)) for _, source in self._sources]
        latents = torch.cat([source.sample(self._seed, samples, views) for source, views in seen]).to(self._device)
        shape = tuple(latents.shape[1:])
        kinds = [kind for kind, _ in self._sources]
        noise = torch.cat([noise_for(shape, self._seed, kind, samples, self._noise_offset) for kind in kinds])
        timesteps = torch.cat([timesteps_for(self._timesteps, self._seed, kind, samples) for kind in kinds])
        is_prior = torch.tensor([kind == "class" for kind, _ in self._sources for _ in samples], device=self._device)
        framing = torch.cat([source.framing(views) for source, views in seen])
        captions = [text for source, views in seen for text in source.captions(self._seed, samples, views)]
        conditioning = self._prompts.conditioning(captions, framing)
        weights = self._loss_weights(seen, (shape[1], shape[2]))
        return Batch(latents, noise.to(self._device), timesteps.to(self._device), is_prior, conditioning, weights)

    def _loss_weights(self, seen: list[tuple[Latents, list[View]]], grid: tuple[int, int]) -> Tensor | None:
        """(b, 1, *grid), or None where no photo has a mask; class images count everywhere."""
        if not any(source.photos.has_masks for source, _ in seen):
            return None
        return torch.cat([source.loss_weights(views, grid) for source, views in seen]).to(self._device)
