"""Trackers get every step; one that is not known is refused by name."""

from pathlib import Path

import pytest
from training_runs import metrics, run_it, small_config, small_prior

from dora_diffusion.errors import MachineError
from dora_diffusion.machine import require_package


def test_tensorboard_gets_every_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    run, prior = {"report_to": "tensorboard", "logging_dir": "tracks"}, small_prior(tmp_path / "class", 1)
    run_it(small_config(tmp_path / "run", 3, adapter={"rank": 1}, prior=prior, run=run))
    (file,) = [
        path
        for path in (tmp_path / "run" / "tracks").rglob("events.out.tfevents.*")
        if path.parent.name == "dora_diffusion"
    ]
    events = event_accumulator.EventAccumulator(str(file)).Reload()
    rows = metrics(tmp_path / "run")
    for name in ("loss", "instance_loss", "prior_loss", "lr"):
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in told] == [1, 2, 3]
        assert [value for _, value in told] == pytest.approx([row[name] for row in rows], rel=1e-5)
    assert len(events.Scalars("step_ms")) == 3


def test_no_tracker_writes_nothing(finished_run: Path) -> None:
    assert not (finished_run / "logs").exists()


def test_an_unknown_tracker_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="tensorboard, wandb, trackio and none, got 'tensorbord'"):
        run_it(small_config(tmp_path / "run", run={"report_to": "tensorboard,tensorbord"}))
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_is_not_installed_is_refused_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, extra: str, why: str) -> object:
        return require_package("no_such_tracker_anywhere", extra, why)

    monkeypatch.setattr("dora_diffusion.training.hardware.require_package", absent)
    with pytest.raises(MachineError, match="--report_to wandb.*trackers"):
        run_it(small_config(tmp_path / "run", run={"report_to": "wandb"}))
    assert list(tmp_path.iterdir()) == []
