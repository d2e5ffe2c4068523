"""Export: nothing that is not proved looks like a success, what is refused says why, and what was made can be had."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fake_makers import BAD, GOOD

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.export_formats import ONE_FILE
from dora_diffusion.studio.ui.choices import Entries
from dora_diffusion.studio.ui.export import ExportActions, _form
from dora_diffusion.studio.ui.export_html import formats_html, is_proved, result_html
from dora_diffusion.studio.ui.line import Line
from dora_diffusion.studio.ui.tables import table
from dora_diffusion.studio.workshop import StoppedError

EVIL = '<img src=x onerror="steal()">'
HERE: Any = SimpleNamespace(session_hash="page-1")
FORM = ["teapot-1", "", "diffusers", "fp32", 1.0, 8]


@pytest.fixture
def actions(studio: Any) -> ExportActions:
    return ExportActions(studio, Line(), Entries(studio))


def pressed(**data: str) -> Any:
    return gr.EventData(None, data)


def test_a_proved_file_is_shown_with_its_proof(actions: ExportActions, studio: Any) -> None:
    told = list(actions.export(*FORM, HERE))
    line, html, stop = told[-1]
    made = studio.exports.known[0]
    assert 'data-state="done"' in line and not stop.interactive
    assert (
        'data-proved="true"' in html
        and "✓ Proved for diffusers." in html
        and made.sha256 in html
        and made.path.name in html
    )
    assert 'data-reader="diffusers" data-ok="true"' in html and "2.1e-07" in html and "3.3e-05" in html
    assert 'data-reader="a1111" data-ok="false"' in html and "<b>Not right in A1111</b>: drops the magnitudes" in html
    assert "✓ proved for diffusers · ✗ not for A1111" in actions.earlier("") and "proved for diffusers" in line
    assert f'download="{made.path.name}"' in html and "/media/exports/" in html
    assert any("Reading it back" in line for line, *_ in told)
    assert studio.exports.asked == [
        {"subject_id": "teapot-1", "format": "diffusers", "precision": "fp32", "job_id": None, "step": None}
    ]


def test_a_model_that_no_program_was_asked_about_is_proved_for_none(actions: ExportActions, studio: Any) -> None:
    """A whole model in one file is read back tensor by tensor; of toybox there is no program that loads it."""
    studio.exports.verdicts = (replace(GOOD, reader=ONE_FILE),)
    line, html, _ = list(actions.export(*FORM, HERE))[-1]
    assert "✓ Proved by reading it back." in html and "is proved by reading it back" in line
    assert "proved for" not in html + line + actions.earlier("") and "Download" in html


@pytest.mark.parametrize(
    "verdicts", [(), (BAD,), (replace(GOOD, ok=False),), (GOOD, replace(GOOD, reader="forge", ok=False))]
)
def test_what_is_not_proved_never_looks_like_success(
    actions: ExportActions, studio: Any, verdicts: tuple[Any, ...]
) -> None:
    studio.exports.verdicts = verdicts
    line, html, _ = list(actions.export(*FORM, HERE))[-1]
    assert 'data-state="failed"' in line and "not proved" in line
    assert 'data-proved="false"' in html and "✗ Not proved" in html and "download=" not in html
    assert "✗ not proved" in actions.earlier("") and "✓ proved" not in actions.earlier("")
    assert not is_proved(studio.exports.known[0])


def test_what_is_refused_says_why_and_leaves_nothing(actions: ExportActions, studio: Any) -> None:
    studio.exports.refused = f"Forge would draw something else {EVIL}."
    told = actions.export(*FORM, HERE)
    next(told)
    line, html, _ = next(told)
    assert 'data-state="failed"' in line and "Refused: Forge would draw" in line and html == "" and "<img" not in line
    with pytest.raises(StudioError, match="Forge would draw"):
        next(told)
    assert "Nothing was exported yet" in actions.earlier("")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({0: None}, "Choose a subject"),
        ({0: "gone-1"}, "no subject"),
        ({0: "../x"}, "no subject"),
        ({1: "job-1@999"}, "no such checkpoint"),
        ({1: "job-9@100"}, "no such checkpoint"),
    ],
)
def test_what_is_not_there_is_refused(actions: ExportActions, studio: Any, changes: dict[int, Any], words: str) -> None:
    given = [changes.get(place, value) for place, value in enumerate(FORM)]
    with pytest.raises(StudioError, match=words):
        list(actions.export(*given, HERE))
    assert studio.exports.asked == []


def test_a_checkpoint_can_be_exported(actions: ExportActions, studio: Any) -> None:
    choices = [value for _, value in actions.checkpoints("teapot-1").choices]
    assert choices == ["", "job-1@300", "job-1@200", "job-1@100"]
    list(actions.export("teapot-1", "job-1@200", "lora", "fp16", 0.5, 4, HERE))
    asked = studio.exports.asked[-1]
    assert "strength" not in asked  # its field is hidden: it takes none
    assert (asked["job_id"], asked["step"], asked["rank"], asked["precision"]) == ("job-1", 200, 4, "fp16")
    list(actions.export("teapot-1", "", "merged", "fp16", 0.5, 4, HERE))
    assert studio.exports.asked[-1]["strength"] == 0.5 and "rank" not in studio.exports.asked[-1]
    assert [value for _, value in actions.checkpoints("gone-1").choices] == [""]
    assert [value for _, value in actions.checkpoints(None).choices] == [""]


def test_a_format_shows_only_the_settings_it_takes(actions: ExportActions) -> None:
    for name, takes_strength, takes_rank in (
        ("diffusers", False, False),
        ("lora", False, True),
        ("merged", True, False),
    ):
        strength, rank, table = actions.formatted(name)
        assert (strength.visible, rank.visible) == (takes_strength, takes_rank)
        assert f'<tr data-format="{name}" class=chosen' in table
    assert 'data-format="diffusers" class=chosen' in actions.formatted("nonsense")[2]


def test_the_rank_is_the_projects_own(studio: Any) -> None:
    with gr.Blocks():
        assert _form(ExportActions(studio, Line(), Entries(studio)), studio.exports.formats())["rank"].value == 32


def test_earlier_exports_are_shown_and_deleted_when_asked_twice(actions: ExportActions, studio: Any) -> None:
    list(actions.export(*FORM, HERE))
    asks, line, html = actions.press(pressed(do="show", id="export-1"))
    assert asks == "" and "An earlier export" in line and 'data-export="export-1"' in html
    asks, *_ = actions.press(pressed(do="delete", id="export-1"))
    assert asks == "export-1" and 'data-do="delete-yes"' in actions.earlier(asks) and studio.exports.known
    assert actions.press(pressed(do="keep"))[0] == "" and studio.exports.known
    assert actions.press(pressed(do="delete-yes", id="export-1"))[::2] == ("", "") and not studio.exports.known
    for do in ("show", "delete", "delete-yes"):
        with pytest.raises(StudioError):
            actions.press(pressed(do=do, id="export-1"))


def test_a_stopped_export_says_so(actions: ExportActions, studio: Any) -> None:
    studio.exports.export = lambda *_, **__: (_ for _ in ()).throw(StoppedError("stopped"))
    line, html, stop = list(actions.export(*FORM, HERE))[-1]
    assert 'data-state="stopped"' in line and html == "" and not stop.interactive
    with pytest.raises(StudioError, match="not exporting"):
        actions.stop(HERE)


def test_another_tabs_choice_is_followed_where_it_can_be_exported(actions: ExportActions, studio: Any) -> None:
    assert actions.follow("teapot-1", None) == "teapot-1"
    studio.jobs.steps = []
    cup = studio.subjects.create([], "Cup", "cup")
    assert actions.follow(cup.id, "teapot-1") == gr.skip() and actions.follow("", None) == gr.skip()
    assert actions.follow(cup.id, None) == "teapot-1", "a fresh page shows the newest that there is"


def test_a_read_only_studio_exports_nothing(actions: ExportActions, studio: Any) -> None:
    studio.is_read_only = True
    with pytest.raises(StudioError, match="Another studio"):
        list(actions.export(*FORM, HERE))


def test_each_cell_says_what_it_is_where_rows_are_cards() -> None:
    rows = '<tr><th scope="row">a</th><td>1</td></tr><tr><th>b</th><td>2</td></tr>'
    html = table("x", "X", ("File", "Size & <more>"), rows)
    assert re.findall(r'<t[dh][^>]* data-label="([^"]*)"', html) == ["File", "Size &amp; &lt;more&gt;"] * 2
    assert html.count("<thead><tr><th scope") == 1


def test_words_of_others_are_escaped(actions: ExportActions, studio: Any) -> None:
    list(actions.export(*FORM, HERE))
    made = replace(studio.exports.known[0], note=EVIL, verdicts=(replace(GOOD, words=EVIL, reader=EVIL),))
    html = result_html(made, EVIL) + formats_html([replace(studio.exports.formats()[0], what=EVIL, cannot=EVIL)], "")
    assert "<img" not in html and 'onerror="steal' not in html
