"""Randomness as a function of (seed, what, step, sample), never of a process's history.

Exact resume, equality of one and many processes and of different engines all follow from it. Drawn on the CPU, so that
every device sees the same numbers.
"""

from hashlib import blake2b

import torch
from torch import Tensor


def generator(seed: int, *where: int | str) -> torch.Generator:
    """A CPU generator of its own for each (seed, where): ``generator(0, "noise", step, sample)``."""
    text = ":".join(str(part) for part in (seed, *where))
    return torch.Generator().manual_seed(int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "little"))


def normal(shape: tuple[int, ...], seed: int, *where: int | str) -> Tensor:
    """Standard normal numbers, float32."""
    return torch.randn(shape, generator=generator(seed, *where))


def integer(high: int, seed: int, *where: int | str) -> int:
    """A whole number in [0, high)."""
    return int(torch.randint(high, (1,), generator=generator(seed, *where)))


def uniform(seed: int, *where: int | str) -> float:
    """A number in [0, 1)."""
    return float(torch.rand((), dtype=torch.float64, generator=generator(seed, *where)))


def shuffled(count: int, sample: int, seed: int, what: str) -> int:
    """Which of ``count`` things sample number ``sample`` gets: every pass takes each once, in an order of its own."""
    order = torch.randperm(count, generator=generator(seed, what, sample // count))
    return int(order[sample % count])
