"""The panel says the state to people and to machines, and nothing it shows can be HTML of somebody else's."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from dora_diffusion.config import DataConfig, TrainConfig
from dora_diffusion.studio.jobs import JobStatus, State
from dora_diffusion.studio.subjects import Subject
from dora_diffusion.studio.ui.curve import loss_curve
from dora_diffusion.studio.ui.panel import job_panel, time_left

EVIL = '<img src=x onerror="steal()">'
DUCK = Subject("duck-1", Path("duck-1"), TrainConfig(data=DataConfig(trigger="sks", class_noun="duck")))
RUNNING = JobStatus("duck-1", "training", step=30, max_train_steps=120, loss=0.12345, seconds_left=75.0)


def test_a_running_training() -> None:
    html = job_panel(DUCK, RUNNING, [(1, 0.5), (2, 0.4)])
    assert '<p id="job-line" data-state="training" data-subject="duck-1">▶ Training sks duck</p>' in html
    assert 'aria-valuenow="30"' in html and 'style="width:25.0%"' in html
    assert re.sub("<[^>]*>", "", html).find("Step 30 of 120 · loss 0.1235 · 75 s left") > 0
    assert "<svg" in html


def test_time_left_is_not_guessed() -> None:
    assert "measuring the time" in job_panel(DUCK, replace(RUNNING, seconds_left=None), [])


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_has_its_words(state: State) -> None:
    html = job_panel(DUCK, JobStatus("duck-1", state, max_train_steps=120), [])
    assert f'data-state="{state}"' in html and "sks duck" in html


def test_words_of_others_are_escaped() -> None:
    subject = replace(DUCK, config=TrainConfig(data=DataConfig(trigger=EVIL, class_noun=EVIL)))
    html = job_panel(subject, replace(RUNNING, state="failed", message=EVIL), [])
    assert "<img" not in html and html.count("&lt;img") == 3


def test_a_stop_on_its_way_is_told() -> None:
    assert "Asked to stop" in job_panel(DUCK, replace(RUNNING, stop_asked=True), [])
    assert "Asked to stop" not in job_panel(DUCK, replace(RUNNING, state="stopped", stop_asked=True), [])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3570, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_time_left(seconds: float, words: str) -> None:
    assert time_left(seconds) == words


def test_no_curve_of_one_point() -> None:
    assert loss_curve([], 10) == loss_curve([(1, 0.5)], 10) == ""


def points(svg: str, kind: str) -> list[tuple[float, float]]:
    line = re.search(rf'class="{kind}" points="([^"]*)"', svg)
    assert line is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line[1].split())]


def test_the_curve_stays_in_its_picture_and_falls_with_the_loss() -> None:
    svg = loss_curve([(step, 1 / step) for step in range(1, 101)], 200)
    for kind in ("raw", "mean"):
        drawn = points(svg, kind)
        assert all(62 <= x <= 548 and 12 <= y <= 154 for x, y in drawn)
        assert drawn == sorted(drawn)  # to the right, and down: y grows downwards in SVG
    assert 'aria-label="Loss over 100 of 200 steps' in svg


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_flat_curve_is_drawn(value: float) -> None:
    svg = loss_curve([(1, value), (2, value)], 2)
    assert len({y for _, y in points(svg, "raw")}) == 1


def test_a_long_curve_is_thinned_but_keeps_its_end() -> None:
    svg = loss_curve([(step, 0.5) for step in range(1, 10_001)], 10_000)
    drawn = points(svg, "raw")
    assert len(drawn) < 450 and drawn[-1][0] == 548.0
