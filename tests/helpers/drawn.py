"""What samples of a run look like, drawn as its batches draw them."""

from torch import Tensor

from dora_diffusion.data.latents import Latents


def draw(latents: Latents, seed: int, samples: list[int]) -> Tensor:
    """(b, c, h, w): scaled latents of the samples with these numbers."""
    return latents.sample(seed, samples, latents.views(seed, samples))
