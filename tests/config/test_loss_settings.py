"""The loss's and the prior's settings: what is understood, and combinations in which one would be ignored."""

from typing import Any

import pytest

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import LossConfig, PriorConfig, TrainConfig
from dora_diffusion.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "weighting", "gamma"),
    [
        ([], "uniform", 5),
        (["--snr_gamma", "3"], "min_snr", 3),
        (["--loss_weighting", "min_snr"], "min_snr", 5),
        (["--loss_weighting", "min_snr", "--snr_gamma=1"], "min_snr", 1),
        (["--loss_weighting", "debiased"], "debiased", 5),
    ],
)
def test_a_gamma_alone_switches_min_snr_on(given: list[str], weighting: str, gamma: float) -> None:
    loss = parse(TrainConfig, given, "train").loss
    assert (loss.weighting(), loss.gamma()) == (weighting, gamma)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"snr_gamma": 5, "loss_weighting": "debiased"}, "belongs to loss_weighting min_snr, got 5 and debiased"),
        ({"snr_gamma": 5, "loss_weighting": "uniform"}, "got 5 and uniform"),
        ({"snr_gamma": 0}, "snr_gamma must be greater than 0, got 0"),
        ({"huber_c": 0.2}, "huber_c means nothing to loss_type l2, got 0.2"),
        ({"huber_schedule": "constant"}, "huber_schedule means nothing to loss_type l2, got constant"),
        ({"loss_type": "huber", "huber_c": 0}, "huber_c must be greater than 0"),
        ({"loss_type": "l1"}, "loss_type must be 'l2', 'huber' or 'smooth_l1', got 'l1'"),
        ({"noise_offset": -0.1}, "noise_offset must be greater than or equal to 0"),
        ({"min_timestep": -1}, "min_timestep must be greater than or equal to 0"),
        ({"min_timestep": 300, "max_timestep": 300}, "which is not drawn itself; got 300 and 300"),
    ],
)
def test_a_loss_that_ignores_a_setting_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LossConfig(**values)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_huber_takes_its_settings() -> None:
    assert LossConfig(loss_type="huber", huber_c=0.3, huber_schedule="constant").huber_c == 0.3


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"prior_kind": "prediction"}, "Add --with_prior_preservation"),
        (
            {"prior_kind": "prediction", "with_prior_preservation": True, "class_data_dir": "pictures"},
            "needs no class images, got class_data_dir pictures",
        ),
        ({"prior_kind": "teacher"}, "prior_kind must be 'images' or 'prediction', got 'teacher'"),
    ],
)
def test_a_prior_that_ignores_a_setting_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PriorConfig(**values)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "images", "prediction"),
    [
        ({}, False, False),
        ({"with_prior_preservation": True}, True, False),
        ({"with_prior_preservation": True, "prior_kind": "prediction"}, False, True),
    ],
)
def test_one_switch_turns_either_kind_on(values: dict[str, Any], images: bool, prediction: bool) -> None:
    prior = PriorConfig(**values)
    assert (prior.uses_images(), prior.uses_prediction()) == (images, prediction)


def test_a_preset_with_class_images_can_do_without_them() -> None:
    prior = parse(TrainConfig, ["--preset", "toybox-quick", "--prior_kind", "prediction"], "train").prior
    assert prior.uses_prediction() and prior.prior_loss_weight == 0.5
