"""Subjects: cards and one in full, from what is; every change goes through the service, every word is escaped."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import gradio as gr
import pytest
from fake_makers import trained_teapot
from fake_studio import FakeStudio, a_job

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.observe import State
from dora_diffusion.studio.ui.cards import PAGE, WORDS, Sizes, cards_html, size_words
from dora_diffusion.studio.ui.subject_detail import detail_html
from dora_diffusion.studio.ui.subjects import SubjectActions, still_told

EVIL = '<img src=x onerror="steal()">'
SAMPLES = sorted((Path(__file__).parents[3] / "samples" / "subjects" / "teapot").glob("*.jpg"))


class Shared:
    """Leads to tabs by their names."""

    def go(self, name: str) -> str:
        return f"tab {name}"


@pytest.fixture
def studio(tmp_path: Path) -> Any:
    return FakeStudio(tmp_path / "home")


@pytest.fixture
def actions(studio: Any) -> SubjectActions:
    return SubjectActions(studio, Shared())  # type: ignore[arg-type]


def pressed(**data: str) -> Any:
    return gr.EventData(None, data)


def test_without_subjects_the_first_steps_are_shown(actions: SubjectActions, studio: Any) -> None:
    html = actions.cards("", 0)
    assert "No subjects yet" in html and html.count('data-do="sample"') == 3 and 'data-do="teach"' in html
    chosen, tab, _ = actions.press_card(0, pressed(do="sample", name="teapot"))
    assert (chosen, tab) == ("teapot-1", "tab teach") and len(studio.subjects.photos("teapot-1")) == 5
    assert actions.press_card(0, pressed(do="teach"))[1] == "tab teach"
    with pytest.raises(StudioError):
        actions.press_card(0, pressed(do="sample", name="../x"))


def test_a_card_tells_what_is_known(actions: SubjectActions, studio: Any) -> None:
    trained_teapot(studio, SAMPLES)
    html = actions.cards("teapot-1", 0)
    assert 'data-subject="teapot-1" data-state="done" aria-current="true"' in html
    for words in ("Teapot", "sks teapot, toybox", "✓</span> taught", "likeness 71%", "kB", "taught "):
        assert words in html, words
    assert 'alt="a photo of Teapot"' in html and 'aria-label="Open Teapot"' in html


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_has_a_sign_and_a_word(actions: SubjectActions, studio: Any, state: State) -> None:
    subject = studio.subjects.create(SAMPLES, "Teapot", "teapot")
    studio.jobs.put(a_job(subject_id=subject.id, state=state, message="as <it> went"))
    card, detail = actions.cards("", 0), detail_html(studio, subject)
    assert f'data-state="{state}"' in card and WORDS[state] in card and 'aria-hidden="true">' in card
    assert WORDS[state] in detail and "<it>" not in detail


def test_many_subjects_come_in_pages(actions: SubjectActions, studio: Any) -> None:
    for number in range(PAGE + 3):
        studio.subjects.create([], f"S{number}", "cup")
    first, second = actions.cards("", 0), actions.cards("", 1)
    assert first.count('data-do="open"') == PAGE and second.count('data-do="open"') == 3 and "Page 2 of 2" in second
    assert actions.press_card(0, pressed(do="page", page="1"))[2] == 1
    assert actions.press_card(0, pressed(do="page", page="x"))[2] == gr.skip()


def test_one_in_full(actions: SubjectActions, studio: Any) -> None:
    trained_teapot(studio, SAMPLES)
    studio.jobs.put(replace(studio.jobs.get("job-1"), ordinal=2, changed=("adapter.rank", "optim.optimizer")))
    folder = studio.home.path_of("job", "job-1")
    folder.mkdir(parents=True)
    own = "run:\n  checkpointing_steps: 50\n  max_train_steps: 300\n"  # what the studio sets itself
    (folder / "config.yaml").write_text(f"preset: toybox-quick\nadapter:\n  rank: 3\n{own}")
    html, change = actions.detail("teapot-1")
    assert change.visible
    assert html.count("<svg") == 2 and html.count('alt="photo ') == 5
    assert 'data-step="300" data-used="true"' in html and 'data-step="200" data-used="false"' in html
    assert (
        "61%" in html and "100 ★ best" in html and re.search(r"adapter\.rank</th><td[^>]*>3</td><td[^>]*>changed", html)
    )
    assert html.count(">changed<") == 1 and "checkpointing_steps" not in html, "only what somebody changed"
    assert "optim.optimizer" not in html, "given, and the same as before"
    assert "<b>Training 2</b>" in html and "Settings of training 2" in html and "Remove training 2" in html
    assert not re.search(r">[^<]*job-\d[^<]*<", html) and "job-1" not in "".join(re.findall('aria-label="[^"]*"', html))
    actions.press_detail("teapot-1", pressed(do="use", job="job-1", step="200"))
    assert studio.subjects.get("teapot-1").chosen_step == 200
    html, _ = actions.detail("teapot-1")
    assert 'data-step="200" data-used="true"' in html and 'data-step="300" data-used="false"' in html


def test_buttons_lead_to_the_other_tabs(actions: SubjectActions, studio: Any) -> None:
    trained_teapot(studio, SAMPLES)
    assert actions.press_detail("teapot-1", pressed(do="retrain", subject="teapot-1")) == ("teapot-1", "tab teach", "")
    assert actions.press_detail("teapot-1", pressed(do="export", subject="teapot-1")) == ("teapot-1", "tab export", "")
    assert actions.press_detail("teapot-1", pressed(do="create", subject="teapot-1")) == ("teapot-1", "tab create", "")
    with pytest.raises(StudioError):
        actions.press_detail("teapot-1", pressed(do="retrain", subject="../../etc"))
    assert actions.press_card(0, pressed(do="open", id="teapot-1"))[0] == "teapot-1"
    with pytest.raises(StudioError):
        actions.press_card(0, pressed(do="open", id="gone-1"))


def test_an_ended_training_is_removed_at_the_second_press(actions: SubjectActions, studio: Any) -> None:
    trained_teapot(studio, [])
    assert 'data-do="remove"' in actions.detail("teapot-1")[0]
    *_, asks = actions.press_detail("teapot-1", pressed(do="remove", job="job-1"))
    assert asks == "job-1" and 'data-do="remove-yes"' in actions.detail("teapot-1", asks)[0] and studio.jobs.known
    assert actions.press_detail("teapot-1", pressed(do="keep", job="job-1"))[2] == "" and studio.jobs.known
    assert actions.press_detail("teapot-1", pressed(do="remove-yes", job="job-1"))[2] == ""
    assert not studio.jobs.known
    with pytest.raises(StudioError):
        actions.press_detail("teapot-1", pressed(do="remove", job="job-1"))
    studio.jobs.put(a_job(subject_id="teapot-1", state="running"))
    assert 'data-do="remove"' not in actions.detail("teapot-1")[0]


def test_rename_delete_and_undo(actions: SubjectActions, studio: Any) -> None:
    trained_teapot(studio, [])
    assert "It is called Rex now." in actions.rename("teapot-1", "Rex")
    with pytest.raises(StudioError):
        actions.delete("teapot-1", "rex?")
    notice, typed, chosen = actions.delete("teapot-1", "Rex")
    assert (typed, chosen) == ("", "") and "Rex was deleted" in notice and 'data-id="teapot-1"' in notice
    assert studio.subjects.list() == []
    html, change = actions.detail("teapot-1")  # the page of somebody who had it open
    assert "Rex was deleted." in html and not change.visible
    notice, chosen = actions.undo(pressed(do="undo", id="teapot-1"))
    assert chosen == "teapot-1" and "Rex is back." in notice and len(studio.subjects.list()) == 1
    assert actions.undo(pressed(do="something"))[1] == gr.skip()


def test_what_was_done_to_a_subject_is_told_until_another_is_shown(actions: SubjectActions, studio: Any) -> None:
    trained_teapot(studio, [])
    renamed = actions.rename("teapot-1", "Rex")
    assert still_told("teapot-1", renamed) == gr.skip() and still_told("robot-1", renamed) == ""
    deleted, _, chosen = actions.delete("teapot-1", "Rex")
    assert still_told(chosen, deleted) == still_told("robot-1", deleted) == gr.skip(), "its Undo is nowhere else"
    back, chosen = actions.undo(pressed(do="undo", id="teapot-1"))
    assert still_told(chosen, back) == gr.skip() and still_told("robot-1", back) == ""


def test_a_subject_that_is_none_is_an_empty_page(actions: SubjectActions) -> None:
    for chosen in ("", "gone-1", "../.."):
        html, change = actions.detail(chosen)
        assert "Open a subject" in html and not change.visible
        assert actions.name_of(chosen) == ("", "")


def test_a_read_only_studio_offers_no_change(actions: SubjectActions, studio: Any) -> None:
    trained_teapot(studio, [])
    studio.is_read_only = True
    assert not actions.detail("teapot-1")[1].visible


def test_words_of_others_are_escaped(actions: SubjectActions, studio: Any) -> None:
    subject = studio.subjects.create(SAMPLES, EVIL, "cup")
    studio.subjects.update(subject.id, class_noun=EVIL, trigger=EVIL)
    studio.jobs.put(a_job(subject_id=subject.id, state="cancelled", message=EVIL, settings=EVIL))
    html = actions.cards("", 0) + actions.detail(subject.id)[0] + actions.rename(subject.id, EVIL)
    html += actions.delete(subject.id, EVIL)[0]
    assert "<img src=x" not in html and 'onerror="steal' not in html and "&lt;img src=x" in html


def test_sizes(studio: Any, tmp_path: Path) -> None:
    assert size_words(12) == "1\u00a0kB" and size_words(340_000) == "340\u00a0kB"
    assert size_words(12_400_000) == "12.4\u00a0MB" and size_words(2_345_000_000) == "2.35\u00a0GB"
    folder = studio.home.path_of("job", "job-7")
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "weights").write_bytes(b"x" * 5000)
    (folder / "away").symlink_to("/nowhere")
    sizes = Sizes(studio)
    assert 5000 <= sizes.of("cup-1", ["job-7"]) < 5100
    (folder / "more").write_bytes(b"x" * 5000)
    assert sizes.of("cup-1", ["job-7"]) < 5100  # added up once a minute at most
    assert Sizes(studio).of("cup-1", ["job-7"]) >= 10_000


def test_a_page_of_many_subjects_is_quick(actions: SubjectActions, studio: Any) -> None:
    for number in range(200):
        studio.subjects.create([], f"S{number}", "cup")
    began = time.monotonic()
    cards_html(studio, Sizes(studio), "", 0)
    assert time.monotonic() - began < 0.3
