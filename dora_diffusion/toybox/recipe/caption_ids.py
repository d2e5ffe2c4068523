"""Captions of a shard as token ids, made in worker processes while the pictures are rendered."""

import random
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dora_diffusion.toybox.architecture import MAX_TOKENS
from dora_diffusion.toybox.captions import caption
from dora_diffusion.toybox.draws import Instances, Split, Views, draw_instances, draw_views, mixed_with_named
from dora_diffusion.toybox.recipe.loop import seeded

NAMED_SHARE = 0.2  # of the pictures: toys that captions call by name
_INSTANCES, _VIEWS, _CAPTIONS, _NAMED = range(4)  # what a seed is for


class CaptionIds:
    """Text to token ids, each word looked up once. The same ids as the tokenizer's, padded to ``MAX_TOKENS``.

    Args:
        tokenizer: a folder that ``architecture.tokenizer`` wrote.
    """

    def __init__(self, tokenizer: Path):
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        self._start, self._end = self._tokenizer.encode("").ids  # every text is put between these two
        self._words: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        ids = [self._start]
        for word in text.split():
            if word not in self._words:
                self._words[word] = self._tokenizer.encode(word, add_special_tokens=False).ids
            ids += self._words[word]
        ids = [*ids[: MAX_TOKENS - 1], self._end]
        return ids + [self._end] * (MAX_TOKENS - len(ids))


def shard_rows(seed: int, number: int, size: int, split: Split) -> tuple[Instances, Views]:
    """What is seen in shard ``number``: the same in every process and on every machine."""
    instances = draw_instances(size, seeded(seed, number, _INSTANCES), split)
    if split == Split.TRAIN:
        instances = mixed_with_named(instances, NAMED_SHARE, seeded(seed, number, _NAMED))
    return instances, draw_views(instances, seeded(seed, number, _VIEWS))


def shard_ids(seed: int, number: int, size: int, split: Split, captions: int, tokenizer: Path) -> NDArray[np.int16]:
    """``(size, captions, MAX_TOKENS)`` token ids of the captions of shard ``number``."""
    torch.set_num_threads(1)  # as many of these processes run as there are cores
    ids = _caption_ids(tokenizer)
    instances, views = shard_rows(seed, number, size, split)
    rng = random.Random(seeded(seed, number, _CAPTIONS))
    rows = [[ids(caption(instances, views, i, rng)) for _ in range(captions)] for i in range(size)]
    return np.asarray(rows, dtype=np.int16)


@cache
def _caption_ids(tokenizer: Path) -> CaptionIds:
    """One table of words a process and tokenizer."""
    return CaptionIds(tokenizer)


def stream_ids(
    seed: int, first: int, size: int, split: Split, captions: int, tokenizer: Path, workers: int, every: int = 1
) -> Generator[NDArray[np.int16], None, None]:
    """``shard_ids`` of every ``every``-th shard from ``first``, without end; workers are a few shards ahead.

    Workers are spawned, not forked, so that it does not matter whether the GPU is already in use.
    """
    if not workers:
        for number in count(first, every):
            yield shard_ids(seed, number, size, split, captions, tokenizer)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[NDArray[np.int16]]] = deque()
        try:
            for number in count(first, every):
                waiting.append(pool.submit(shard_ids, seed, number, size, split, captions, tokenizer))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()
