"""Pictures to learn from, rendered ahead onto the device, with the token ids of their captions."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dora_diffusion.toybox.draws import Split, draw_instances, draw_views
from dora_diffusion.toybox.recipe.caption_ids import shard_rows, stream_ids
from dora_diffusion.toybox.recipe.loop import seeded
from dora_diffusion.toybox.recipe.processes import ALONE, Place
from dora_diffusion.toybox.recipe.settings import PoolSettings
from dora_diffusion.toybox.render import render

TEST_SEED = 7  # of the held-out pictures: always the same ones

Keep = Callable[[Tensor], Tensor]  # pictures (n, 3, size, size) as bytes, to what a stage learns from, row by row


@dataclass(frozen=True)
class Shard:
    """``pictures (n, 3, size, size)`` as bytes and ``token_ids (n, captions, MAX_TOKENS)`` int16, on the device."""

    pictures: Tensor
    token_ids: Tensor


class Shards:
    """Shard after shard, without end; shard k is a function of (seed, k).

    Args:
        tokenizer: a folder with a tokenizer; only needed where captions are wanted.
        first: the number to begin with.
        place: among several processes, each takes every ``place.count``-th shard; ``number`` counts those of all.
    """

    def __init__(
        self,
        settings: PoolSettings,
        seed: int,
        device: str,
        tokenizer: Path | None = None,
        first: int = 0,
        split: Split = Split.TRAIN,
        place: Place = ALONE,
    ):
        self.number = first
        self.settings = settings
        self._place = place
        self._seed, self._device, self._split = seed, device, split
        self._ids: Generator[NDArray[np.int16], None, None] | None = None
        if settings.captions and tokenizer is not None:
            job = (settings.shard, split, settings.captions, tokenizer, settings.workers)
            self._ids = stream_ids(seed, first + place.rank, *job, every=place.count)

    def __next__(self) -> Shard:
        settings = self.settings
        if self._ids is None:
            ids = torch.zeros(settings.shard, 0, 0, dtype=torch.int16)
        else:
            ids = torch.from_numpy(next(self._ids))
        number = self.number + self._place.rank
        instances, views = shard_rows(self._seed, number, settings.shard, self._split)
        images = render(instances, views, settings.size, settings.supersample, self._device).images
        self.number += self._place.count
        return Shard(as_bytes(images), ids.to(self._device))

    def close(self) -> None:
        """End the worker processes."""
        if self._ids is not None:
            self._ids.close()


class Pool:
    """A ring of rows to draw batches from; a renewal overwrites the oldest shard.

    Args:
        count: rows at most, a multiple of the shards' size.
        keep: what is kept of a shard's pictures.
    """

    def __init__(self, shards: Shards, count: int, keep: Keep):
        self._shards, self._count, self._keep = shards, count, keep
        self._next = 0
        self._rows = self._token_ids = torch.empty(0)
        self.filled = 0

    def fill(self, may_go_on: Callable[[], bool]) -> int:
        """Fill the pool, with one shard at least; returns how many rows it holds."""
        self.renew()
        while self.filled < self._count and may_go_on():
            self.renew()
        return self.filled

    def renew(self) -> None:
        """Add the next shard, in the place of the oldest once the pool is full."""
        shard = next(self._shards)
        rows = self._keep(shard.pictures)
        if not self.filled:
            self._rows = torch.empty(self._count, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
            self._token_ids = torch.empty(
                self._count, *shard.token_ids.shape[1:], dtype=torch.int16, device=rows.device
            )
        place = slice(self._next, self._next + len(rows))
        self._rows[place], self._token_ids[place] = rows, shard.token_ids
        self._next = place.stop % self._count
        self.filled = max(self.filled, place.stop)

    def renew_when_due(self, step: int) -> None:
        """``renew`` every so many steps, as the settings say."""
        every = self._shards.settings.refresh_every
        if every and step % every == 0:
            self.renew()

    @property
    def shards_used(self) -> int:
        """The number of the first shard that no process has seen yet."""
        return self._shards.number

    def first(self, count: int) -> Tensor:
        """``count`` rows, or as many as there are."""
        return self._rows[: min(count, self.filled)]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` rows, drawn with repetition."""
        return self._rows[self._places(count, generator)]

    def draw_captioned(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` rows, and one caption of each as ``(count, MAX_TOKENS)`` int64 ids."""
        places = self._places(count, generator)
        variants = self._token_ids.shape[1]
        which = torch.randint(variants, (count,), generator=generator, device=places.device)
        return self._rows[places], self._token_ids[places, which].long()

    def _places(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.filled, (count,), generator=generator, device=self._rows.device)


def held_out_photos(count: int, settings: PoolSettings, device: str) -> Tensor:
    """``(count, 3, size, size)`` bytes: photos of toys that training never sees."""
    instances = draw_instances(count, seeded(TEST_SEED, 0), Split.TEST)
    views = draw_views(instances, seeded(TEST_SEED, 1), styles=["photo"])
    return as_bytes(render(instances, views, settings.size, settings.supersample, device).images)


def as_bytes(images: Tensor) -> Tensor:
    """Pictures in 0 to 1 as bytes."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def as_pixels(pictures: Tensor) -> Tensor:
    """Bytes as the pixel values that an autoencoder takes, -1 to 1."""
    return pictures.float() / 127.5 - 1
