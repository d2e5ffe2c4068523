"""Noise and timesteps are functions of a sample's number, with the distributions that their settings name."""

import pytest
import torch

from dora_diffusion.config import LossConfig
from dora_diffusion.data.draws import integer, normal
from dora_diffusion.errors import ConfigError
from dora_diffusion.training.noise import TimestepRange, noise_for, timestep_range, timesteps_for

SHAPE = (4, 8, 8)


def test_plain_noise_and_timesteps_are_the_named_draws() -> None:
    """Runs of earlier versions go on with the same numbers."""
    noise = noise_for(SHAPE, 3, "class", [5, 9])
    assert torch.equal(noise, torch.stack([normal(SHAPE, 3, "class-noise", n) for n in (5, 9)]))
    timesteps = timesteps_for(timestep_range(LossConfig(), 1000, 4), 3, "class", [5, 9])
    assert timesteps.tolist() == [integer(1000, 3, "class-timestep", n) for n in (5, 9)]
    assert timesteps.dtype == torch.int64


def test_offset_noise_adds_one_number_to_a_channel_of_a_sample() -> None:
    samples = list(range(200))
    plain, offset = (noise_for(SHAPE, 0, "instance", samples, share) for share in (0.0, 0.5))
    added = offset - plain
    per_channel = added.mean((2, 3))
    assert (added - per_channel[:, :, None, None]).abs().max() < 1e-6
    # 800 independent numbers of standard deviation 0.5: the limits lie at four standard errors.
    assert abs(float(per_channel.mean())) < 4 * 0.5 / 800**0.5
    assert float(per_channel.std()) == pytest.approx(0.5, abs=4 * 0.5 / 1600**0.5)
    assert len(set(per_channel.flatten().tolist())) == 800
    correlation = torch.corrcoef(torch.stack([per_channel.flatten(), plain.mean((2, 3)).flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.15
    torch.testing.assert_close(noise_for(SHAPE, 0, "instance", samples, 0.25) - plain, added / 2, rtol=1e-4, atol=1e-6)


def test_noise_of_a_sample_is_its_own() -> None:
    together = noise_for(SHAPE, 0, "instance", [3, 4], 0.1)
    assert torch.equal(together[1], noise_for(SHAPE, 0, "instance", [4], 0.1)[0])
    for other in (noise_for(SHAPE, 0, "class", [4], 0.1), noise_for(SHAPE, 1, "instance", [4], 0.1)):
        assert not torch.equal(together[1], other[0])


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_timesteps_stay_in_their_range_and_reach_its_ends(sampling: str) -> None:
    how = LossConfig(min_timestep=7, max_timestep=12, timestep_sampling=sampling)  # type: ignore[arg-type]
    drawn = timesteps_for(timestep_range(how, 1000, 4), 0, "instance", list(range(400)))
    assert set(drawn.tolist()) == {7, 8, 9, 10, 11}


@pytest.mark.parametrize(("global_batch", "low", "high"), [(4, 0, 1000), (3, 0, 1000), (8, 100, 900), (7, 3, 10)])
def test_each_sample_of_a_step_takes_a_stratum_of_its_own(global_batch: int, low: int, high: int) -> None:
    within = TimestepRange(low, high, global_batch)
    cuts = [(high - low) * k / global_batch + low for k in range(global_batch + 1)]
    orders = set()
    for step in range(20):
        drawn = timesteps_for(within, 0, "instance", [step * global_batch + k for k in range(global_batch)]).tolist()
        for timestep, start, end in zip(sorted(drawn), cuts, cuts[1:], strict=False):
            assert int(start) <= timestep < end  # a cut through a timestep leaves it to both sides
        orders.add(tuple(sorted(range(global_batch), key=lambda place: drawn[place])))
    assert len(orders) > 3  # who takes which is drawn for each step


def test_stratified_timesteps_are_as_likely_as_others() -> None:
    within = TimestepRange(0, 10, 3)
    drawn = timesteps_for(within, 0, "instance", list(range(6000)))
    counts = torch.bincount(drawn, minlength=10).double()
    assert (counts - 600).abs().max() < 4.5 * (6000 * 0.1 * 0.9) ** 0.5
    one_place = timesteps_for(within, 0, "instance", list(range(0, 6000, 3)))  # the first of every step
    assert (torch.bincount(one_place, minlength=10).double() - 200).abs().max() < 4.5 * (2000 * 0.1 * 0.9) ** 0.5


def test_their_mean_over_a_step_varies_less() -> None:
    def spread(strata: int) -> float:
        drawn = timesteps_for(TimestepRange(0, 1000, strata), 0, "instance", list(range(800))).double()
        return float(drawn.view(100, 8).mean(1).std())

    # Means of 8: uniform 289 / sqrt(8) = 102, one in each of 8 strata 289 / 8 / sqrt(8) = 13.
    assert spread(1) == pytest.approx(102, rel=0.25)
    assert spread(8) == pytest.approx(12.8, rel=0.25)


def test_a_stratified_timestep_needs_no_other_sample() -> None:
    within = TimestepRange(0, 1000, 4)
    together = timesteps_for(within, 0, "instance", list(range(8))).tolist()
    assert [int(timesteps_for(within, 0, "instance", [n])) for n in range(8)] == together
    assert timesteps_for(within, 0, "class", list(range(8))).tolist() != together
    assert timesteps_for(within, 1, "instance", list(range(8))).tolist() != together


def test_only_stratified_sampling_has_strata() -> None:
    assert timestep_range(LossConfig(timestep_sampling="stratified"), 1000, 6) == TimestepRange(0, 1000, 6)
    assert timestep_range(LossConfig(min_timestep=5), 1000, 6) == TimestepRange(5, 1000, 1)


@pytest.mark.parametrize(("low", "high"), [(0, 1001), (1000, None), (1500, 2000)])
def test_timesteps_that_the_model_has_not_are_refused(low: int, high: int | None) -> None:
    with pytest.raises(ConfigError, match="The model has timesteps 0 to 999; min_timestep"):
        timestep_range(LossConfig(min_timestep=low, max_timestep=high), 1000, 1)
