"""Orders are checked whole before anything is started: each violation has its own message."""

from dataclasses import replace
from typing import Any

import pytest

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.orders import MAX_PICTURES, MAX_SEED, Order, checked, decided, one_by_one

GOOD = Order(prompt="a photo of sks dog")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "  \n "}, "Write what"),
        ({"prompt": "x" * 1001}, "at most 1000 letters, got 1001"),
        ({"prompt": None}, "A prompt is text, got 'None'"),
        ({"negative_prompt": "x" * 1001}, "negative prompt has at most"),
        ({"strength": 1.6}, "between 0 and 1.5, got 1.6"),
        ({"strength": -0.1}, "got -0.1"),
        ({"strength": float("nan")}, "between 0 and 1.5, got nan"),
        ({"strength": "1"}, "Strength lies"),
        ({"strength": True}, "Strength lies"),
        ({"seed": -2}, "got -2"),
        ({"seed": 2**31}, "2147483647"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": float("inf")}, "got inf"),
        ({"seed": MAX_SEED, "num_images": 2}, "last picture's seed"),
        ({"num_images": 0}, "from 1 to 8, got 0"),
        ({"num_images": 9}, "got 9"),
        ({"num_inference_steps": 0}, "from 1 to 150, got 0"),
        ({"num_inference_steps": 151}, "got 151"),
        ({"num_inference_steps": None}, "from 1 to 150, got nothing"),
        ({"guidance_scale": 31}, "between 0 and 30"),
        ({"sampler": "eulr"}, "Did you mean 'euler'"),
        ({"sampler": "x" * 500}, "There is no sampler"),
        ({"width": 56}, "from 64 to 2048"),
        ({"width": 2056}, "from 64 to 2048"),
        ({"height": 100}, "multiple of 8, got 100. Take 96 or 104"),
        ({"width": 2048, "height": 2048}, "at most 2,359,296 pixels"),
        ({"step": 10}, "of which training"),
        ({"job_id": "job-1", "step": -1}, "checkpoint's step"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(StudioError, match=says) as caught:
        checked(replace(GOOD, **change))
    assert len(str(caught.value)) < 300


def test_limits_themselves_are_taken() -> None:
    wide = replace(GOOD, width=2048, height=1152, num_inference_steps=150, seed=MAX_SEED, strength=1.5, num_images=1)
    assert checked(wide) == wide
    assert checked(replace(GOOD, prompt="x" * 1000)).prompt == "x" * 1000


def test_words_are_tidied_and_whole_numbers_are_whole() -> None:
    order = checked(replace(GOOD, prompt=" a\tphoto\n\nof \x00a \ud800dog ", seed=3.0, num_images=2.0, width=64.0))
    assert order.prompt == "a photo of a dog"
    assert (order.seed, order.num_images, order.width) == (3, 2, 64)
    assert type(order.seed) is type(order.num_images) is type(order.width) is int


def test_a_random_seed_is_decided_once_and_leaves_room() -> None:
    seeds = {decided(replace(GOOD, seed=-1)).seed for _ in range(50)}
    assert len(seeds) > 40 and all(0 <= seed <= MAX_SEED - MAX_PICTURES for seed in seeds)
    assert decided(replace(GOOD, seed=7)).seed == 7


def test_one_by_one_counts_the_seeds_up() -> None:
    assert [(o.seed, o.num_images) for o in one_by_one(replace(GOOD, seed=5, num_images=3))] == [(5, 1), (6, 1), (7, 1)]
