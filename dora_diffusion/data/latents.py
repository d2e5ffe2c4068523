"""Latents of views, encoded once where nothing changes them, sampled afresh every step."""

from collections.abc import Callable

import torch
from torch import Tensor

from dora_diffusion.data.draws import normal
from dora_diffusion.data.views import Photos, View

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


class Latents:
    """The autoencoder's distribution over the latents of ``photos``.

    What is kept is the distribution, not a sample of it: the sample is drawn for every step.

    Args:
        encode: pixel values (b, 3, h, w) in [-1, 1] to mean and standard deviation (b, c, h / 8, w / 8).
        scaling_factor: the autoencoder's.
        cache: keep encodings of views that come again; a random crop never does.
    """

    def __init__(self, photos: Photos, encode: Encode, scaling_factor: float, cache: bool = True):
        self.photos = photos
        self._encode = encode
        self._scaling_factor = scaling_factor
        self._cache = cache
        self._kept: dict[View, tuple[Tensor, Tensor]] = {}

    def sample(self, seed: int, samples: list[int]) -> Tensor:
        """Scaled latents (b, c, h, w) of the run's samples with these numbers, float32."""
        distributions = [self._distribution(self.photos.view(seed, sample)) for sample in samples]
        latents = [
            mean + std * normal(tuple(mean.shape), seed, f"{self.photos.name}-latent", sample).to(mean.device)
            for sample, (mean, std) in zip(samples, distributions, strict=True)
        ]
        return torch.stack(latents) * self._scaling_factor

    def can_be_filled(self) -> bool:
        """Whether every view can be encoded once for all."""
        return self._cache and self.photos.fixed_views() is not None

    def fill(self) -> None:
        """Encode every view now, so that the autoencoder is not needed any more. See ``can_be_filled``."""
        for view in self.photos.fixed_views() or []:
            self._distribution(view)

    def framing(self, seed: int, samples: list[int]) -> Tensor:
        """(b, 6) float32, pixels: of each sample what ``Photos.framing`` says."""
        return torch.tensor([self.photos.framing(self.photos.view(seed, sample)) for sample in samples]).float()

    def _distribution(self, view: View) -> tuple[Tensor, Tensor]:
        if view in self._kept:
            return self._kept[view]
        mean, std = self._encode(self.photos.pixel_values(view)[None])
        distribution = mean[0], std[0]
        if self._cache and self.photos.has_few_views(view):
            self._kept[view] = distribution
        return distribution
