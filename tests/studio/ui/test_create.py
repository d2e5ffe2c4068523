"""Create's handlers: what can be chosen, what the prompt lacks, what is drawn and told, and the history."""

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fake_makers import trained_teapot
from fake_studio import FakeStudio, a_job

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.ui.choices import Entries, drawable, label_of, target, value_of
from dora_diffusion.studio.ui.create_actions import CreateActions
from dora_diffusion.studio.ui.drawing import Step, picture_step, state_line
from dora_diffusion.studio.ui.history import PAGE, START, History, notes_html
from dora_diffusion.studio.ui.line import Line
from dora_diffusion.studio.ui.suggestions import SCENES, STYLES, with_scene, with_style

EVIL = '<img src=x onerror="steal()">'
SAMPLES = sorted((Path(__file__).parents[3] / "samples" / "subjects" / "teapot").glob("*.jpg"))
HERE: Any = SimpleNamespace(session_hash="page-1")
ELSEWHERE: Any = SimpleNamespace(session_hash="page-2")


@pytest.fixture
def studio(tmp_path: Path) -> Any:
    found = FakeStudio(tmp_path / "home")
    trained_teapot(found, SAMPLES)
    return found


@pytest.fixture
def actions(studio: Any) -> CreateActions:
    return CreateActions(studio, Line(), Entries(studio))


def form(value: str = "teapot-1", **changes: Any) -> list[Any]:
    """What the page sends."""
    usual = {
        "prompt": "a photo of sks teapot",
        "negative": "",
        "strength": 1,
        "seed": 7,
        "count": 2,
        "steps": 3,
        "guidance": None,
        "sampler": "model",
        "width": None,
        "height": None,
    }
    return [value, *{**usual, **changes}.values()]


def test_subjects_checkpoints_in_training_and_bases_can_be_chosen(studio: Any) -> None:
    robot = studio.subjects.create([], "Robbie", "robot")
    studio.jobs.put(a_job(id="job-2", subject_id=robot.id, step=210, total=300))
    studio.jobs.steps = [100, 200]
    assert drawable(studio) == [
        ("Robbie (sks robot), in training: newest checkpoint, step 200 of 300", f"{robot.id}@job-2@newest"),
        ("Teapot (sks teapot)", "teapot-1"),
        ("Toybox (embedded) alone", "base:toybox"),
    ]
    found = target(studio, f"{robot.id}@job-2@newest")
    assert (found.subject, found.job_id, found.step) == (robot, "job-2", 200)
    assert target(studio, "base:toybox").subject is None
    assert label_of(studio, "teapot-1@job-1@100") == "Teapot (sks teapot), step 100"
    assert target(studio, "Teap").subject == studio.subjects.get("teapot-1")  # typed instead of chosen


@pytest.mark.parametrize(
    "value",
    [None, "", 7, "nobody-1", "base:nothing", "teapot-1@job-9@100", "teapot-1@job-1@999", "teapot-1@job-1@x", "../etc"]
    + ["teapot-1@job-1", "teapot-1@job-1@100@1", "base:../../x", "teapot-1@job-1@-1", "teapot-1@job-1@²"],
)
def test_what_is_not_there_is_refused_in_plain_words(studio: Any, value: Any) -> None:
    with pytest.raises(StudioError):
        target(studio, value)


def test_an_entry_and_an_order_say_the_same(studio: Any) -> None:
    for order in (Order(), Order(subject_id="teapot-1"), Order(subject_id="teapot-1", job_id="job-1", step=100)):
        found = target(studio, value_of(order))
        again = (found.subject.id if found.subject else None, found.base, found.job_id, found.step)
        assert again == (order.subject_id, order.base, order.job_id, order.step)


def test_a_subject_in_the_trash_is_not_offered_where_it_was_chosen(actions: CreateActions, studio: Any) -> None:
    assert "teapot-1" in [value for _, value in actions.entries("teapot-1")]
    studio.subjects.delete("teapot-1", "Teapot")
    assert [value for _, value in actions.entries("teapot-1")] == ["base:toybox"]


def test_a_prompt_is_written_for_the_entry_and_never_over_the_users(actions: CreateActions) -> None:
    prompt, written = actions.opened("teapot-1", "", "")
    assert prompt == written == "a photo of sks teapot on the beach"
    assert actions.opened("base:toybox", prompt, written)[0] == "a photo of a red teapot on the beach"
    assert actions.opened("base:toybox", "mine", written)[0] == gr.skip()
    assert actions.opened("base:toybox", None, "")[0] == "a photo of a red teapot on the beach"


def test_a_missing_and_a_misspelt_trigger_are_told_and_mended(actions: CreateActions) -> None:
    html, button = actions.help("teapot-1", "a photo of a dog")
    assert "Teapot" in html and "data-tokens=" in html and button.visible and button.value == "Insert Teapot"
    assert "sks teapot" in actions.insert("teapot-1", "a photo of a dog")
    html, button = actions.help("teapot-1", "a photo of skz teapot")
    assert "skz" in html and button.value == "Correct it"
    assert actions.insert("teapot-1", "a photo of skz teapot") == "a photo of sks teapot"
    html, button = actions.help("teapot-1", "a photo of sks teapot")
    assert "⚠" not in html and not button.visible
    assert not actions.help("base:toybox", "a dog")[1].visible
    assert not actions.help("gone-1", "a dog")[1].visible
    with pytest.raises(StudioError, match="no name to insert"):
        actions.insert("base:toybox", "a dog")


def test_a_prompt_about_another_subject_follows_the_choice(actions: CreateActions, studio: Any) -> None:
    studio.subjects.create([], "robot 1", "robot")
    assert actions.renamed("teapot-1", "a photo of <Robot 1> in the snow") == "a photo of <Teapot> in the snow"
    assert actions.renamed("teapot-1", "a photo of sks robot, sunset") == "a photo of sks teapot, sunset"
    assert actions.renamed("teapot-1", "a photo of sks teapot") == gr.skip()
    assert actions.renamed("base:toybox", "a photo of <robot 1>") == gr.skip() == actions.renamed(None, "x")
    html, button = actions.help("teapot-1", "a photo of <robot 1>")
    assert "&lt;robot 1&gt; is another subject." in html and button.value == "Correct it"
    assert actions.insert("teapot-1", "a photo of <robot 1>") == "a photo of <Teapot>"
    html, button = actions.help("teapot-1", "<teapot> and <robot 1>")
    assert "is another subject" in html and not button.visible, "both may be meant"


def test_words_of_a_prompt_are_escaped(actions: CreateActions) -> None:
    html, _ = actions.help("teapot-1", f"{EVIL} <Teapot> " + "very " * 200)
    assert "<img" not in html and "&lt;img" in html


def test_suggestions_take_each_others_place() -> None:
    prompt = with_scene("a photo of sks dog", "Beach")
    assert prompt == "a photo of sks dog on the beach"
    for scene, words in SCENES.items():
        prompt = with_scene(prompt, scene)
        assert prompt == f"a photo of sks dog {words}"
    for style, words in STYLES.items():
        prompt = with_style(prompt, style)
        assert prompt == f"{words} sks dog {SCENES['Kitchen']}"
    assert with_style("An oil painting of a cup", "Pencil") == "a pencil sketch of a cup"
    assert with_scene("", "Snow") == "in the snow" and with_style("", "Photo") == "a photo of"


def test_a_drawn_order_is_shown_picture_by_picture(actions: CreateActions, studio: Any) -> None:
    told = list(actions.draw(HERE, *form()))
    galleries = [gallery for gallery, *_ in told if isinstance(gallery, list)]
    assert [len(gallery) for gallery in galleries] == [0, 1, 2]
    (first, alt), _ = galleries[-1]
    assert Path(first).suffix == ".png" and alt == "a photo of sks teapot, seed 7"
    assert [picture.order.seed for picture in studio.pictures.known] == [7, 8]
    line = told[-1][1]
    assert 'data-state="done"' in line and "2 pictures in" in line and "seeds 7 and 8" in line
    assert told[0][2] == 7  # for "reuse last seed"
    assert told[0][3].interactive is True and told[-1][3].interactive is False
    assert any("Picture 2 of 2, step 3 of 3" in line for _, line, *_ in told if isinstance(line, str))


def test_a_random_seed_is_decided_and_told(actions: CreateActions, studio: Any) -> None:
    told = list(actions.draw(HERE, *form(seed=-1, count=1)))
    assert told[0][2] == studio.pictures.known[0].order.seed >= 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "  "}, "Write what the picture"),
        ({"strength": 7}, "Strength lies"),
        ({"strength": None}, "Strength lies"),
        ({"count": 9}, "from 1 to 8"),
        ({"seed": None}, "A seed is"),
        ({"width": 70}, "multiple of 8"),
        ({"sampler": "magic"}, "no sampler"),
        ({"value": "nobody-1"}, "no subject"),
    ],
)
def test_what_cannot_be_drawn_is_told_on_the_line_and_raised(
    actions: CreateActions, changes: dict[str, Any], words: str
) -> None:
    told = actions.draw(HERE, *form(**changes))
    line = next(told)[1]
    assert 'data-state="failed"' in line and words in line
    with pytest.raises(StudioError, match=words):
        next(told)


def test_a_fault_while_drawing_frees_the_line(actions: CreateActions, studio: Any) -> None:
    studio.pictures.broken = "The workshop died."
    with pytest.raises(StudioError, match="died"):
        list(actions.draw(HERE, *form()))
    studio.pictures.broken = ""
    assert 'data-state="done"' in list(actions.draw(HERE, *form()))[-1][1]


def test_a_read_only_studio_draws_nothing(actions: CreateActions, studio: Any) -> None:
    studio.is_read_only = True
    with pytest.raises(StudioError, match="Another studio"):
        list(actions.draw(HERE, *form()))
    assert studio.pictures.known == []


def test_stop_ends_this_pages_order_and_keeps_what_is_drawn(actions: CreateActions, studio: Any) -> None:
    studio.pictures.step_s = 0.02
    other: list[Any] = []
    thread: threading.Thread | None = None
    lines = []
    for gallery, line, *_ in actions.draw(HERE, *form(count=8)):
        lines.append(line)
        if thread is None and 'data-state="working"' in str(line):  # it is served: the other one comes after it
            thread = threading.Thread(target=lambda: other.extend(actions.draw(ELSEWHERE, *form(count=1))))
            thread.start()
        if isinstance(gallery, list) and len(gallery) == 1:
            while len(other) < 2:
                time.sleep(0.01)
            actions.stop(HERE)
    assert 'data-state="stopped"' in lines[-1] and "1 picture in" in lines[-1]
    assert thread is not None
    thread.join(10)
    assert 'data-state="done"' in other[-1][1]
    assert any("Waiting behind 1 order" in line for _, line, *_ in other if isinstance(line, str))
    with pytest.raises(StudioError, match="not drawing anything"):
        actions.stop(HERE)


def test_another_tabs_choice_is_followed_where_it_can_be_drawn(actions: CreateActions, studio: Any) -> None:
    assert actions.follow("teapot-1", "", "base:toybox") == "teapot-1"
    assert actions.follow("teapot-1", "", "teapot-1") == gr.skip()
    assert actions.follow("", "", "base:toybox") == gr.skip()
    untaught = studio.subjects.create([], "Cup", "cup")
    assert actions.follow(untaught.id, "", "teapot-1") == gr.skip(), "what was chosen stays"
    assert actions.follow(untaught.id, "", "base:toybox") == "teapot-1", "a fresh page shows the newest that there is"
    tried = actions.follow("teapot-1", "job-1:100", "teapot-1")
    assert tried.value == "teapot-1@job-1@100" and "step 100" in tried.choices[-1][0]
    assert actions.follow("teapot-1", "job-1:999", "base:toybox") == "teapot-1"


def test_a_pictures_settings_come_back_into_the_form(actions: CreateActions, studio: Any) -> None:
    *values, notes = actions.read("settings.png")
    assert values[1:5] == ["a photo of sks teapot in the snow", "", 0.8, 77] and notes == ["Rex is not here."]
    assert "Rex is not here." in notes_html(notes) and EVIL not in notes_html([EVIL])
    with pytest.raises(StudioError, match="does not say how"):
        actions.read("other.png")
    with pytest.raises(StudioError, match="Choose a PNG"):
        actions.read(None)
    made = studio.pictures.keep(Order(subject_id="teapot-1", job_id="job-1", step=200, prompt="x", seed=5))
    choice, prompt, _, _, seed, count, *_, notes = actions.reuse(made.id)
    assert (choice.value, prompt, seed, count, notes) == ("teapot-1@job-1@200", "x", 5, 1, [])
    gone = studio.pictures.keep(Order(subject_id="gone-1", prompt="x", seed=5))
    studio.pictures.notes = ["The subject 'gone-1' is not here; the base alone will draw it."]
    *values, notes = actions.reuse(gone.id)
    assert values[0] == gr.skip() and notes == studio.pictures.notes


def test_progress_in_words() -> None:
    assert picture_step(Step(1, 100), 4) == "Picture 1 of 4, step 1 of 25"
    assert picture_step(Step(25, 100), 4) == "Picture 1 of 4, step 25 of 25"
    assert picture_step(Step(35, 100), 4) == "Picture 2 of 4, step 10 of 25"
    assert picture_step(Step(100, 100), 4) == "Picture 4 of 4, step 25 of 25"
    assert picture_step(Step(3, 25), 1) == "Step 3 of 25"
    assert "Drawing</p>" in state_line("x", "working", "Step 3 of 25")
    assert "Proving</p>" in state_line("x", "working", "x", doing="Proving")
    assert state_line("x", "waiting", "Starting").count("Starting") == 2, "nobody is in line: none is spoken of"
    html = state_line("x", "working", EVIL, Step(30, 120))
    assert "<img" not in html and 'aria-valuenow="30"' in html and "width:25.0%" in html


class TestHistory:
    def test_pages_newest_first(self, studio: Any) -> None:
        for seed in range(PAGE + 6):
            studio.pictures.keep(Order(subject_id="teapot-1" if seed % 2 else None, prompt="a dog", seed=seed))
        history = History(studio)
        first, _ = history.shown(START)
        assert "Page 1 of 2 · 30 pictures" in first and first.count('data-do="pick"') == PAGE
        assert first.index("seed 29") < first.index("seed 28") and "seed 5," not in first
        second = history.press(START, {"do": "page", "id": "1"})
        html, _ = history.shown(second)
        assert "Page 2 of 2" in html and html.count('data-do="pick"') == 6 and 'alt="a dog, seed 0"' in html
        assert "Page 2 of 2" in history.shown({**START, "page": 99})[0]
        only, _ = history.shown(history.choose("teapot-1"))
        assert 'data-count="15"' in only and "Page" not in only
        assert [label for label, _ in history.subjects()] == ["All", "Teapot (sks teapot)", "Base models alone"]
        for entry, seeds in zip(
            ("all", "teapot-1", "base:"), (range(6, 30), range(1, 30, 2), range(0, 30, 2)), strict=True
        ):
            shown, _ = history.shown(history.choose(entry))
            assert sorted(map(int, re.findall(r'alt="a dog, seed (\d+)"', shown))) == list(seeds)
        assert history.choose(None) == START

    def test_a_picture_is_picked_and_deleted_only_when_asked_twice(self, studio: Any) -> None:
        made = studio.pictures.keep(Order(prompt=EVIL, negative_prompt=EVIL, seed=5))
        history = History(studio)
        place = history.press(START, {"do": "pick", "id": str(made.id)})
        grid, detail = history.shown(place)
        assert 'aria-pressed="true"' in grid and "Reuse settings" in detail and "<img src=x" not in grid + detail
        place = history.press(place, {"do": "delete"})
        assert "Delete this picture for good?" in history.shown(place)[1] and studio.pictures.count() == 1
        kept = history.press(place, {"do": "keep"})
        assert "Reuse settings" in history.shown(kept)[1]
        place = history.press(place, {"do": "delete-yes"})
        assert studio.pictures.count() == 0 and "No pictures yet" in history.shown(place)[0]
        with pytest.raises(StudioError, match="no picture"):
            history.press(START, {"do": "pick", "id": str(made.id)})

    def test_nonsense_from_a_browser_changes_nothing(self, studio: Any) -> None:
        history = History(studio)
        assert history.press(START, {}) == START
        assert history.press(START, {"do": "delete-yes"}) == START
        assert history.press(START, {"do": "page", "id": "-1"})["page"] == 0
        with pytest.raises(StudioError):
            history.choose("../..")
        with pytest.raises(StudioError):
            history.press(START, {"do": "pick", "id": "9" * 400})

    def test_a_picture_whose_subject_is_gone_is_still_told_of(self, studio: Any) -> None:
        made = studio.pictures.keep(Order(subject_id="teapot-1", prompt="x", seed=5))
        studio.pictures.known[0] = replace(made, order=replace(made.order, subject_id="gone-1"))
        _, detail = History(studio).shown({**START, "picked": made.id})
        assert "gone-1 (not here any more)" in detail
        studio.pictures.delete(made.id)
        assert "was deleted" in History(studio).shown({**START, "picked": made.id})[1]
