"""Compare's handlers: what is planned and told before, what is drawn, and the table that shows it."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.ui.choices import Entries
from dora_diffusion.studio.ui.compare_actions import CompareActions
from dora_diffusion.studio.ui.compare_grid import grid_html
from dora_diffusion.studio.ui.line import Line

EVIL = '<img src=x onerror="steal()">'
HERE: Any = SimpleNamespace(session_hash="page-1")


@pytest.fixture
def actions(studio: Any) -> CompareActions:
    return CompareActions(studio, Line(), Entries(studio))


def form(mode: str = "base", values: str = "", rows: str = "", job: str | None = None, **changes: Any) -> list[Any]:
    """What the page sends."""
    usual = {"prompt": "a photo of sks teapot", "strength": 1.0, "seed": 3, "steps": 2}
    value = changes.pop("value", "teapot-1")
    return [mode, value, job, values, rows, *{**usual, **changes}.values()]


def test_the_cost_is_told_before(actions: CompareActions) -> None:
    html = actions.cost(*form("strengths", "0, 0.4, 0.7, 1, 1.2", "1, 2"))
    assert "10 pictures, about 25 s" in html and 'data-ok="yes"' in html


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (form("strengths", "0, x"), "x"),
        (form("strengths", ""), "write at least one"),
        (form("strengths", ",".join(["0.1"] * 20), "1, 2"), "40 pictures are too many"),
        (form("strengths", "0, 9"), "Strength lies"),
        (form("sizes"), "Compare one of"),
        (form(value="gone-1"), "no subject"),
        (form(value="base:toybox"), "by its seeds only"),
        (form(prompt=" "), "Write what"),
        (form(rows="1, two"), "two"),
        (form(steps=0), "Sampling steps"),
    ],
)
def test_what_is_wrong_is_told_beside_the_fields_and_refused(
    actions: CompareActions, studio: Any, given: list[Any], words: str
) -> None:
    html = actions.cost(*given)
    assert 'data-ok="no"' in html and words in html and "✗" in html
    told = actions.draw(HERE, *given)
    assert words in next(told)[2]
    with pytest.raises(StudioError):
        next(told)
    assert studio.pictures.known == []


def test_hostile_words_are_escaped(actions: CompareActions, studio: Any) -> None:
    assert "<img" not in actions.cost(*form("strengths", EVIL))
    order = Order(subject_id="teapot-1", prompt=EVIL)
    grid = studio.comparisons.plan("base", order)
    grid = replace(grid, rows=(EVIL,), columns=(EVIL, EVIL))
    drawn = {(cell.row, cell.column): cell for cell in studio.comparisons.draw(grid)}
    assert "<img src=x" not in grid_html(grid, drawn) and 'onerror="steal' not in grid_html(grid, drawn)


@pytest.mark.parametrize(
    ("mode", "value", "rows", "meant"),
    [
        ("base", "teapot-1", "", (True, True, True, True)),
        ("base", "teapot-1", "1, 2", (True, True, False, True)),
        ("base", "teapot-1", "  ", (True, True, True, True)),
        ("strengths", "teapot-1", "", (True, True, True, False)),
        ("seeds", "teapot-1", "", (False, False, True, True)),
        ("seeds", "base:toybox", None, (False, False, True, False)),
        ("checkpoints", "teapot-1", "", (True, True, True, True)),
    ],
)
def test_what_changes_nothing_in_a_mode_is_hidden_or_closed(
    actions: CompareActions, mode: str, value: str, rows: str | None, meant: tuple[bool, ...]
) -> None:
    shown, seed, strength = actions.meant(mode, value, rows)
    assert (shown.visible, seed.visible, seed.interactive, strength.visible) == meant


def test_the_modes_have_fields_of_their_own_with_usual_values(actions: CompareActions) -> None:
    values, job = actions.mode("strengths", "teapot-1")
    assert values.visible and values.value == "0, 0.4, 0.7, 1, 1.2" and not job.visible
    values, job = actions.mode("base", "teapot-1")
    assert not values.visible and not job.visible
    values, job = actions.mode("checkpoints", "teapot-1")
    assert values.value == "100, 200, 300" and job.visible and job.value == "job-1"
    values, job = actions.mode("checkpoints", "base:toybox")
    assert values.value == "" and job.choices == []
    assert actions.mode("nonsense", None)[0].visible is False


def test_a_grid_is_drawn_cell_by_cell_and_can_be_saved(actions: CompareActions, studio: Any) -> None:
    told = list(actions.draw(HERE, *form("strengths", "0, 0.5, 1", "1, 2")))
    counts = [
        int(found[1]) for html, *_ in told if isinstance(html, str) and (found := re.search(r'drawn="(\d+)"', html))
    ]
    assert counts == [0, 1, 2, 3, 4, 5, 6]
    html = next(html for html, *_ in reversed(told) if isinstance(html, str))
    assert re.findall(r'<th scope="col">([^<]+)</th>', html) == ["strength 0", "strength 0.5", "strength 1"]
    assert re.findall(r'<th scope="row">([^<]+)</th>', html) == ["seed 1", "seed 2"]
    assert 'alt="a photo of sks teapot; seed 2; strength 0.5"' in html and html.count("<img ") == 6
    _, slider, line, stop, save = told[-1]
    assert 'data-state="done"' in line and not stop.interactive and not slider.visible
    assert (
        save.interactive and Path(save.value["path"] if isinstance(save.value, dict) else save.value).suffix == ".png"
    )
    drawn = [(picture.order.strength, picture.order.seed) for picture in studio.pictures.known]
    assert drawn == [(strength, seed) for seed in (1, 2) for strength in (0.0, 0.5, 1.0)]


def test_two_pictures_can_be_laid_over_each_other(actions: CompareActions) -> None:
    slider = list(actions.draw(HERE, *form()))[-1][1]
    assert slider.visible and slider.value


def test_checkpoints_are_those_of_the_chosen_training(actions: CompareActions, studio: Any) -> None:
    list(actions.draw(HERE, *form("checkpoints", "100, 300", job="job-1")))
    assert [(made.order.job_id, made.order.step) for made in studio.pictures.known] == [("job-1", 100), ("job-1", 300)]
    assert actions.steps("job-1") == "100, 200, 300" and actions.steps(None) == ""


def test_a_stop_keeps_what_was_drawn(actions: CompareActions, studio: Any) -> None:
    studio.pictures.step_s = 0.01
    last: Any = None
    for told in actions.draw(HERE, *form("seeds", ", ".join(map(str, range(30))))):
        last = told
        if isinstance(told[0], str) and 'data-drawn="2"' in told[0]:
            actions.stop(HERE)
    assert 'data-state="stopped"' in last[2] and "of 30 pictures" in last[2] and last[4].interactive
    with pytest.raises(StudioError, match="not drawing anything"):
        actions.stop(HERE)


def test_nothing_is_saved_of_nothing(studio: Any) -> None:
    line = Line()
    actions = CompareActions(studio, line, Entries(studio))
    line.enter("somebody else")
    told = actions.draw(HERE, *form())
    next(told)
    assert "Waiting behind 1 order" in next(told)[2]
    actions.stop(HERE)
    last = list(told)[-1]
    assert 'data-state="stopped"' in last[2] and not last[4].interactive and studio.pictures.known == []
    assert isinstance(last[1], gr.ImageSlider) and not last[1].visible


def test_a_read_only_studio_compares_nothing(actions: CompareActions, studio: Any) -> None:
    studio.is_read_only = True
    with pytest.raises(StudioError, match="Another studio"):
        list(actions.draw(HERE, *form()))
