"""Aspect-ratio buckets: a few shapes that photos are cropped to, so that little is cut off; one shape a batch."""

from collections.abc import Sequence
from math import log

import torch

from dora_diffusion.data.draws import generator, shuffled

Shape = tuple[int, int]
"""Height and width in pixels."""

WIDEST = 2  # the longer side is at most twice the shorter


def automatic_buckets(resolution: int) -> list[Shape]:
    """Shapes of at most ``resolution ** 2`` pixels, from twice as high as wide to twice as wide as high.

    Sides are multiples of 64 pixels; of an eighth of the resolution (and of 8) below 512, where 64 would be coarse.
    None needs more memory than the square, which is among them.
    """
    step = min(64, max(8, resolution // 64 * 8))
    longer = range(resolution // step * step + step, WIDEST * resolution + 1, step)
    pairs = [(side, resolution**2 // side // step * step) for side in longer]
    wide = [(short, long) for long, short in pairs if short and long <= WIDEST * short]
    return [*((long, short) for short, long in reversed(wide)), (resolution, resolution), *wide]


def nearest(shapes: Sequence[Shape], height: int, width: int) -> Shape:
    """The shape whose aspect ratio is nearest, as a factor; the first of two that are equally near."""
    return min(shapes, key=lambda shape: abs(log(shape[1] / shape[0] * height / width)))


def cover(shape: Shape, height: int, width: int) -> Shape:
    """Height and width of a picture resized, in proportion, to just cover ``shape``."""
    factor = max(shape[0] / height, shape[1] / width)
    return max(shape[0], round(height * factor)), max(shape[1], round(width * factor))


class Order:
    """Which photo each sample of a run shows, as a function of its number.

    Samples come in chunks of ``chunk``: what all processes take in together. A chunk shows photos of one bucket. In
    each pass a bucket of n photos has ``ceil(n * repeats / chunk)`` chunks, and the chunks of all buckets are shuffled.
    Within a bucket, photos come in a stream that goes on from chunk to chunk: each pass over the bucket takes every
    photo ``repeats`` times, in an order of its own.

    Args:
        members: by bucket, the photos in it; none is empty.
        name: what the draws are filed under.
    """

    def __init__(self, members: Sequence[Sequence[int]], *, chunk: int, repeats: int, name: str):
        self._members = members
        self._chunk = chunk
        self._repeats = repeats
        self._name = name
        self._chunks = [-(-len(photos) * repeats // chunk) for photos in members]

    def bucket(self, seed: int, sample: int) -> int:
        """The bucket of sample number ``sample``."""
        return self._place(seed, sample)[0]

    def photo(self, seed: int, sample: int) -> int:
        """The photo of sample number ``sample``."""
        bucket, chunks_before = self._place(seed, sample)
        photos = self._members[bucket]
        place = chunks_before * self._chunk + sample % self._chunk
        stream = f"{self._name}-order" if len(self._members) == 1 else f"{self._name}-order-{bucket}"
        return photos[shuffled(len(photos) * self._repeats, place, seed, stream) % len(photos)]

    def _place(self, seed: int, sample: int) -> tuple[int, int]:
        """(bucket, how many of its chunks came before) of the sample's chunk."""
        chunk = sample // self._chunk
        if len(self._chunks) == 1:
            return 0, chunk
        whole, position = divmod(chunk, sum(self._chunks))
        schedule = [bucket for bucket, chunks in enumerate(self._chunks) for _ in range(chunks)]
        order = torch.randperm(len(schedule), generator=generator(seed, f"{self._name}-buckets", whole)).tolist()
        drawn = [schedule[k] for k in order[: position + 1]]
        bucket = drawn[-1]
        return bucket, whole * self._chunks[bucket] + drawn.count(bucket) - 1
