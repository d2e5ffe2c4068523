"""The plan: what the first two steps say about the rest, and a plan alone that leaves nothing behind."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_runs import Heard, adapter_bytes, contents, run_it, small_config

from dora_diffusion.cli import train as command
from dora_diffusion.machine import GIB, memory
from dora_diffusion.training import planner
from dora_diffusion.training.events import ClassImages, Planned, RunStarted, StepDone
from dora_diffusion.training.planner import Planner

CPU = torch.device("cpu")


def test_the_plan_is_told_once_after_the_second_step(tmp_path: Path) -> None:
    heard = Heard()
    run_it(small_config(tmp_path / "run", 12, adapter={"rank": 1}), heard)
    (plan,) = heard.of(Planned)
    assert [event.step for event in heard[: heard.index(plan)] if isinstance(event, StepDone)] == [1, 2]
    took = sum(event.step_ms for event in heard.of(StepDone)[2:]) / 1000
    assert took / 5 < plan.seconds < 5 * took  # the machine may be busy with something else
    assert plan.device == "cpu" and plan.total_gib == pytest.approx(memory().total_gib)
    assert 0.1 < plan.peak_gib < plan.total_gib
    heard.clear()
    run_it(small_config(tmp_path / "short", 4, adapter={"rank": 1}), heard)
    assert heard.of(Planned) == []


def test_the_second_step_alone_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 100.0, 100.5])  # made, the first step begins, the second begins and ends
    monkeypatch.setattr(planner, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = Planner(CPU)
    watch.begin_step()
    assert watch.end_step(30) is None
    watch.begin_step()
    plan = watch.end_step(29)
    assert plan is not None and plan.seconds == pytest.approx(29 * 0.5)
    assert watch.end_step(28) is None


def test_a_change_of_settings_starts_the_measurement_again() -> None:
    watch = Planner(CPU)
    watch.end_step(9)
    watch.restart()
    assert watch.end_step(8) is None
    assert watch.end_step(7) is not None


def test_peak_memory_on_a_cpu_is_the_most_the_process_ever_held() -> None:
    def peak() -> float:
        watch = Planner(CPU)
        watch.end_step(2)
        plan = watch.end_step(1)
        assert plan is not None
        return plan.peak_gib

    block = torch.ones(int(peak() * GIB) // 4 + 64 * 2**20 // 4)
    grown = peak()
    assert grown >= block.numel() * 4 / GIB
    del block
    assert peak() == pytest.approx(grown, abs=2**22 / GIB)  # the kernel counts in batches, one a core


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.2, "about 1 s"), (75, "about 75 s"), (700, "about 12 min"), (9000, "about 2.5 h")]
)
def test_the_plan_in_words(seconds: float, told: str) -> None:
    assert str(Planned(6.06, 79.7, "cuda:0", seconds)) == f"6.1 GiB of 80 GiB (cuda:0), {told}"


def test_a_plan_alone_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path / "run", 500, run={"plan_only": True})
    heard = Heard()
    result = run_it(config, heard)
    (plan,) = heard.of(Planned)
    assert result.plan == plan and result.step == 0 and result.stopped
    assert heard.of(StepDone) == heard.of(RunStarted) == []
    assert not (tmp_path / "run").exists()
    assert command.run_config(config) == 0
    assert "      plan: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_plan_of_a_run_that_was_begun_leaves_it_alone(tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "run", 4), stop_after=2)
    before = contents(tmp_path / "run")
    planned: Any = run_it(small_config(tmp_path / "run", 4, run={"plan_only": True}))
    assert planned.plan.seconds > 0 and planned.step == 2
    assert command.run_config(small_config(tmp_path / "run", 4, run={"plan_only": True})) == 0
    assert contents(tmp_path / "run") == before
    run_it(small_config(tmp_path / "run", 4))
    run_it(small_config(tmp_path / "whole", 4))
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(tmp_path / "whole")


def test_time_is_read_where_the_step_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What listeners, previews and checkpoints take between steps is not the steps' time."""

    def slow(event: object) -> None:
        if isinstance(event, StepDone) and event.step <= 2:
            time.sleep(1.0)

    heard = Heard()
    run_it(small_config(tmp_path / "run", 11, adapter={"rank": 1}), lambda event: (slow(event), heard(event))[1])
    (plan,) = heard.of(Planned)
    assert plan.seconds < 9.0


def test_a_plan_draws_no_class_images(tmp_path: Path, own_home: Path) -> None:
    """The photos stand in for them: a step costs the same."""
    heard = Heard()
    prior = {"with_prior_preservation": True, "num_class_images": 50}
    run_it(small_config(tmp_path / "run", 9, prior=prior, run={"plan_only": True}), heard)
    assert heard.of(Planned) and not heard.of(ClassImages)
    assert not (own_home / "class_images").exists() and not (tmp_path / "run").exists()
