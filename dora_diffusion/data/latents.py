"""Latents of views, encoded once where nothing changes them, sampled afresh every step."""

from collections.abc import Callable

import torch
from torch import Tensor

from dora_diffusion.data.buckets import Shape
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
        encode_kept: encodes those views, where it is done otherwise (read from a disk, for example).
    """

    def __init__(
        self,
        photos: Photos,
        encode: Encode,
        scaling_factor: float,
        cache: bool = True,
        encode_kept: Encode | None = None,
    ):
        self.photos = photos
        self._encode = encode
        self._encode_kept = encode_kept or encode
        self._scaling_factor = scaling_factor
        self._cache = cache
        self._kept: dict[View, tuple[Tensor, Tensor]] = {}

    def views(self, seed: int, samples: list[int]) -> list[View]:
        """The views of the run's samples with these numbers, which everything below is told of."""
        return [self.photos.view(seed, sample) for sample in samples]

    def sample(self, seed: int, samples: list[int], views: list[View]) -> Tensor:
        """Scaled latents (b, c, h, w) of the run's samples with these numbers, float32."""
        distributions = [self._distribution(view) for view in views]
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

    def framing(self, views: list[View]) -> Tensor:
        """(b, 6) float32, pixels: of each sample what ``Photos.framing`` says."""
        return torch.tensor([self.photos.framing(view) for view in views]).float()

    def captions(self, seed: int, samples: list[int], views: list[View]) -> list[str]:
        """Of each sample what it is called."""
        return [self.photos.caption(view, seed, sample) for sample, view in zip(samples, views, strict=True)]

    def loss_weights(self, views: list[View], grid: Shape) -> Tensor:
        """(b, 1, *grid) float32: of each sample what the places of its latents count in the loss."""
        return torch.stack([self.photos.loss_weights(view, grid) for view in views])

    def _distribution(self, view: View) -> tuple[Tensor, Tensor]:
        if view in self._kept:
            return self._kept[view]
        comes_again = self._cache and self.photos.has_few_views(view)
        encode = self._encode_kept if comes_again else self._encode
        mean, std = encode(self.photos.pixel_values(view)[None])
        distribution = mean[0], std[0]
        if comes_again:
            self._kept[view] = distribution
        return distribution
