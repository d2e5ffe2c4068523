"""Everything drawn is a function of its place in the run."""

from typing import Any

import torch

from dora_diffusion.data.draws import generator, integer, normal, shuffled

GOLDEN_TIMESTEPS = [510, 713, 380, 114, 107]
GOLDEN_ORDER = [1, 2, 0, 3, 4, 3, 0, 2, 4, 1]
GOLDEN_NOISE = [0.642488, 0.439276]


def test_the_same_place_draws_the_same() -> None:
    torch.manual_seed(1)
    first = normal((3, 4), 0, "noise", 7), integer(1000, 0, "timestep", 7), shuffled(5, 7, 0, "order")
    torch.manual_seed(2)
    normal((9,), 0, "noise", 8)
    again = normal((3, 4), 0, "noise", 7), integer(1000, 0, "timestep", 7), shuffled(5, 7, 0, "order")
    assert torch.equal(first[0], again[0])
    assert first[1:] == again[1:]


def test_another_place_draws_another() -> None:
    places: list[tuple[Any, ...]] = [
        (0, "noise", 7),
        (1, "noise", 7),
        (0, "crop", 7),
        (0, "noise", 8),
        (0, "noise", 7, 0),
        (7, "noise", 0),
    ]
    assert len({normal((4,), *place).numpy().tobytes() for place in places}) == len(places)


def test_drawing_leaves_the_process_own_random_state_alone() -> None:
    before = torch.get_rng_state()
    normal((3,), 0, "x")
    integer(9, 0, "x")
    shuffled(9, 4, 0, "x")
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_the_same_in_every_release() -> None:
    """A run that was begun with an earlier one resumes where it was."""
    assert [integer(1000, 0, "instance-timestep", sample) for sample in range(5)] == GOLDEN_TIMESTEPS
    assert [shuffled(5, sample, 0, "instance-order") for sample in range(10)] == GOLDEN_ORDER
    torch.testing.assert_close(normal((2,), 0, "instance-noise", 0), torch.tensor(GOLDEN_NOISE))


def test_every_pass_takes_each_photo_once_in_an_order_of_its_own() -> None:
    passes = [tuple(shuffled(6, 6 * number + place, 0, "order") for place in range(6)) for number in range(20)]
    assert all(sorted(order) == list(range(6)) for order in passes)
    assert len(set(passes)) > 15  # of 720 orders


def test_numbers_are_normal() -> None:
    numbers = normal((100_000,), 0, "noise", 0)
    assert numbers.dtype == torch.float32
    assert abs(float(numbers.mean())) < 0.01 and abs(float(numbers.std()) - 1) < 0.01
    assert 0.94 < float((numbers.abs() < 1.96).float().mean()) < 0.96


def test_first_numbers_of_neighbouring_samples_are_normal_too() -> None:
    """Seeds that follow each other must not give draws that do."""
    numbers = torch.cat([normal((1,), 0, "noise", sample) for sample in range(4000)])
    assert abs(float(numbers.mean())) < 0.06 and abs(float(numbers.std()) - 1) < 0.05
    neighbours = torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]
    assert abs(float(neighbours)) < 0.06


def test_whole_numbers_fill_their_range_evenly() -> None:
    counts = torch.bincount(torch.tensor([integer(4, 0, "x", sample) for sample in range(2000)]), minlength=4)
    assert len(counts) == 4
    assert counts.min() > 420  # 4 standard deviations below 500
    assert integer(1, 0, "x") == 0


def test_generators_are_on_the_cpu() -> None:
    assert generator(0, "x").device.type == "cpu"
