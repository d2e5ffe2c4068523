"""Batches as a function of (seed, step): nothing is iterated, so nothing has to be restored."""

from copy import copy

import torch
from torch import Tensor

from dora_diffusion.data.draws import integer, normal
from dora_diffusion.data.latents import Latents
from dora_diffusion.models import BaseModel
from dora_diffusion.training.loss import Batch


class Prompts:
    """The conditioning of the instance prompt and the class prompt; encoded once unless the text encoder is trained."""

    def __init__(self, base: BaseModel, instance_prompt: str, class_prompt: str | None, trained: bool):
        self._base = base
        self._prompts = [instance_prompt] if class_prompt is None else [instance_prompt, class_prompt]
        self._kept = None if trained else self._encode_frozen()

    @torch.no_grad()
    def _encode_frozen(self) -> dict[str, Tensor]:
        return self._base.encode_prompts(self._prompts)

    def conditioning(self, is_prior: Tensor, framing: Tensor) -> dict[str, Tensor]:
        """Per sample: the instance prompt's, or the class prompt's where ``is_prior``; and what is told of sizes.

        Args:
            framing: (b, 6), as ``BaseModel.framing`` takes it.
        """
        encoded = self._base.encode_prompts(self._prompts) if self._kept is None else self._kept
        rows = is_prior.long()
        return {name: value[rows] for name, value in encoded.items()} | self._base.framing(framing.to(is_prior.device))


class Batches:
    """Draws the batch of any step.

    Samples are numbered through the whole run: optimizer step, then micro-step, then process, then place in the batch.
    Photo, crop, latent, noise and timestep of a sample depend on its number and the seed alone.

    Args:
        instance, prior: latents of the photos and of the class images (None without prior preservation).
        batch_size: photos of one process and micro-step.
        num_train_timesteps: of the model's schedule.
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
        process: int = 0,
        processes: int = 1,
        device: torch.device,
    ):
        self._sources = [("instance", instance)] if prior is None else [("instance", instance), ("class", prior)]
        self._prompts = prompts
        self._seed = seed
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._timesteps = num_train_timesteps
        self._process, self._processes = process, processes
        self._device = device

    @property
    def global_batch(self) -> int:
        """Photos in one optimizer step over all processes."""
        return self._batch_size * self._accumulation * self._processes

    def split(self, factor: int) -> "Batches":
        """The same samples of every step, in ``factor`` times as many batches, each a ``factor``-th the size."""
        parts = copy(self)
        parts._batch_size, parts._accumulation = self._batch_size // factor, self._accumulation * factor
        return parts

    def batch(self, step: int, micro_step: int) -> Batch:
        """The batch of optimizer step ``step`` (from 0) and micro-step ``micro_step`` for this process."""
        first = step * self.global_batch + (micro_step * self._processes + self._process) * self._batch_size
        samples = list(range(first, first + self._batch_size))
        latents = torch.cat([source.sample(self._seed, samples) for _, source in self._sources]).to(self._device)
        shape = tuple(latents.shape[1:])
        noise = torch.stack(
            [normal(shape, self._seed, f"{kind}-noise", n) for kind, _ in self._sources for n in samples]
        )
        timesteps = torch.tensor(
            [integer(self._timesteps, self._seed, f"{kind}-timestep", n) for kind, _ in self._sources for n in samples]
        )
        is_prior = torch.tensor([kind == "class" for kind, _ in self._sources for _ in samples], device=self._device)
        framing = torch.cat([source.framing(self._seed, samples) for _, source in self._sources])
        conditioning = self._prompts.conditioning(is_prior, framing)
        return Batch(latents, noise.to(self._device), timesteps.to(self._device), is_prior, conditioning)
