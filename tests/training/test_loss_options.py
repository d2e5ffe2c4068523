"""Every setting of the loss, and the prior's kind, changes what a run does."""

from pathlib import Path
from typing import Any

import pytest
from training_runs import PREDICTION, metrics, run_it, small_config, small_prior

from dora_diffusion.config import LossConfig
from dora_diffusion.errors import ConfigError

# Each field with settings to set beside it, and values that must each make another first step.
OBSERVED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "loss_type": ({}, ["l2", "huber", "smooth_l1"]),
    "huber_c": ({"loss_type": "huber"}, [0.1, 0.4]),
    "huber_schedule": ({"loss_type": "huber"}, ["snr", "exponential", "constant"]),
    "loss_weighting": ({}, ["uniform", "min_snr", "debiased"]),
    "snr_gamma": ({}, [None, 0.5, 0.1]),
    "noise_offset": ({}, [0.0, 0.05, 0.5]),
    "min_timestep": ({}, [0, 900]),
    "max_timestep": ({}, [None, 100]),
    "timestep_sampling": ({}, ["uniform", "stratified"]),
}


def first_losses(folder: Path, **settings: Any) -> tuple[float, float | None]:
    """The first step's loss and prior term."""
    run_it(small_config(folder, 1, run={"train_batch_size": 4}, **settings))
    row = metrics(folder)[0]
    return row["loss"], row.get("prior_loss")


def test_every_field_of_the_loss_is_observed() -> None:
    assert OBSERVED.keys() == LossConfig.model_fields.keys()


@pytest.mark.parametrize("field", OBSERVED)
def test_a_field_of_the_loss_reaches_the_run(tmp_path: Path, field: str) -> None:
    beside, values = OBSERVED[field]
    losses = [first_losses(tmp_path / str(k), loss={**beside, field: value})[0] for k, value in enumerate(values)]
    assert all(abs(a / b - 1) > 1e-3 for k, a in enumerate(losses) for b in losses[:k])


def test_the_kind_of_prior_reaches_the_run(tmp_path: Path) -> None:
    _, of_images = first_losses(tmp_path / "images", prior=small_prior(tmp_path / "class"))
    _, of_prediction = first_losses(tmp_path / "prediction", prior=PREDICTION)
    assert of_images is not None and of_prediction is not None
    assert of_images > 0.01 and of_prediction < 1e-11


def test_timesteps_that_the_base_has_not_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The model has timesteps 0 to 999; .* max_timestep 1200"):
        run_it(small_config(tmp_path / "run", 1, loss={"max_timestep": 1200}))
    assert list(tmp_path.iterdir()) == []
