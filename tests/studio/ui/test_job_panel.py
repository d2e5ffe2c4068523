"""The panel and the strip say the state to people and machines, and nothing they show is somebody else's HTML."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_studio import FakeStudio, a_job, a_subject

from dora_diffusion.studio.failures import Failure, Remedy
from dora_diffusion.studio.jobs import Preview
from dora_diffusion.studio.observe import State

pytest.importorskip("gradio")

from dora_diffusion.studio.ui import cards, header, panel, photos, progress, subject_detail, teach  # noqa: E402 - after the check for gradio

EVIL = '<img src=x onerror="steal()">'
FAILURE = Failure("out_of_memory", EVIL, (Remedy("smaller", f"Retry {EVIL}"), Remedy("checkpointing", "Save memory")))


def text(html: str) -> str:
    return re.sub("<[^>]*>", "", html)


def test_a_running_training() -> None:
    html = progress.job_html(a_job(), "Rex")
    assert 'id="job-line" class="state-line" data-state="running" data-job="job-1" data-subject="teapot-1"' in html
    assert 'role="progressbar"' in html and 'aria-valuenow="120"' in html and 'aria-valuemax="300"' in html
    assert 'style="width:40.0%"' in html
    assert "Step 120 of 300 · loss 0.1234 · likeness 71% · 2 min left · 1.4 GiB" in text(html)
    assert 'data-do="cancel"' in html and 'data-do="resume"' not in html


def test_what_a_quality_costs_is_said_when_it_is_known_or_will_be(tmp_path: Path) -> None:
    studio = FakeStudio(tmp_path)
    made = studio.subjects.create_from_sample("teapot").id
    labels = [label for label, _ in teach.qualities_of(studio, made, "toybox")]
    assert labels[0] == "Quick, 120 steps (about 2 min, 1.4 GiB of 24 GiB)"
    studio.estimates.told, studio.estimates.measures = None, True
    assert teach.qualities_of(studio, made, "toybox")[0][0] == "Quick, 120 steps (being measured)"
    studio.estimates.measures = False
    assert teach.qualities_of(studio, made, "toybox")[0][0] == "Quick, 120 steps", "no promise while nothing measures"


def test_no_likeness_is_more_than_all_of_it(tmp_path: Path) -> None:
    above = a_job(likeness=1.013)
    assert "likeness 100%" in text(progress.job_html(above, "Rex"))
    assert "likeness 100%" in text(header.strip_html([above], lambda _: "Rex"))
    studio = FakeStudio(tmp_path)
    made = studio.subjects.create_from_sample("teapot")
    studio.jobs.put(replace(above, subject_id=made.id, state="done"))
    studio.jobs.steps, studio.jobs.alike = [100], [(100, 1.2)]
    assert "likeness 100%" in cards.cards_html(studio, cards.Sizes(studio), made.id, 0)
    detail = subject_detail.detail_html(studio, made)
    assert ">100%</td>" in detail and "101%" not in detail and "120%" not in detail


def test_what_is_heard_begins_with_what_is_seen() -> None:
    shown = panel.actions(a_job(state="interrupted")) + progress.choice_html(a_job(best_step=100), a_subject(), [100])
    shown += photos.samples_html(["teapot"]) + header.strip_html([a_job(state="queued", position=1)], lambda _: "Rex")
    named = re.findall('aria-label="([^"]*)"[^>]*>([^<]+)</button>', shown)
    assert ("Resume: go on with this training", "Resume") in named and ("Try it now: step 100", "Try it now") in named
    assert len(named) > 5 and all(heard.startswith(seen) for heard, seen in named)


def test_what_ended_badly_stays_on_the_strip_until_it_is_mended() -> None:
    remedy = Remedy("resume", "Resume from step 100")
    job = a_job(state="interrupted", ended=1000.0, failure=Failure("interrupted", "It stopped.", (remedy,)))
    assert header.needing([job], now=2000.0) == job
    html = header.strip_html([], lambda _: "Rex", job)
    assert "Learning Rex was interrupted" in text(html) and 'id="strip-line"' in html
    assert re.findall('data-do="([a-z]+)"', html) == ["view", "remedy"] and "Resume from step 100" in html
    assert header.needing([job], now=1000.0 + 13 * 3600) is None, "old news"
    assert header.needing([a_job(id="job-2", state="done", ended=1500.0), job], now=2000.0) is None, "done since"
    assert "Nothing is being taught" in header.strip_html([], lambda _: "Rex")


def test_class_images_are_counted_and_explained() -> None:
    job = a_job(state="starting", step=0, message="making class images: 4 of 12", class_images=(4, 12))
    html, strip = progress.job_html(job, "Rex"), header.strip_html([job], lambda _: "Rex")
    for shown in (html, strip):
        assert "Making class images: 4 of 12" in text(shown) and "Step 0" not in text(shown)
        assert 'aria-valuenow="4"' in shown and 'aria-valuemax="12"' in shown and "width:33.3%" in shown
    assert "other things of its kind" in text(html) and "making class images" not in text(html)


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_has_its_words(state: State) -> None:
    html = progress.job_html(a_job(state=state), "Rex")
    assert f'data-state="{state}"' in html and "Rex" in html
    assert panel.announcement(a_job(state=state), "Rex")


@pytest.mark.parametrize(
    ("state", "buttons"),
    [
        ("queued", {"cancel"}),
        ("starting", {"cancel"}),
        ("running", {"cancel"}),
        ("saving", {"cancel"}),
        ("done", {"create"}),
        ("cancelled", {"resume"}),
        ("interrupted", {"resume"}),
        ("failed", set()),
    ],
)
def test_a_state_offers_what_it_allows(state: State, buttons: set[str]) -> None:
    assert set(re.findall('data-do="([a-z]+)"', panel.actions(a_job(state=state, position=0)))) == buttons


def test_time_left_is_not_guessed() -> None:
    assert "measuring the time" in progress.job_html(a_job(seconds_left=None), "Rex")
    assert "left" not in text(panel.numbers(a_job(state="done", seconds_left=None), "job"))


def test_a_failure_has_its_remedies_as_buttons() -> None:
    html = progress.job_html(a_job(state="failed", failure=FAILURE, message="raw words of the trainer"), "Rex")
    assert re.findall('data-remedy="([a-z]+)"', html) == ["smaller", "checkpointing"]
    assert 'data-code="out_of_memory"' in html and "raw words" not in html


def test_an_interrupted_failure_offers_resume_once() -> None:
    interrupted = Failure("interrupted", "It stopped.", (Remedy("resume", "Resume from step 100"),))
    html = progress.job_html(a_job(state="interrupted", failure=interrupted), "Rex")
    assert html.count("Resume") == 1


def test_words_of_others_are_escaped() -> None:
    job = a_job(state="failed", failure=FAILURE, settings=EVIL, note=EVIL, device=EVIL, message=EVIL)
    subject = a_subject(name=EVIL)
    drawn = [Preview(1, EVIL, 0, Path("x.jpg"), None)]
    shown = [
        progress.job_html(job, EVIL),
        progress.job_html(replace(job, state="running", failure=None), EVIL),
        progress.choice_html(replace(job, best_step=1), subject, [1]),
        header.strip_html([replace(job, state="running"), a_job(id="job-2", state="queued")], lambda _: EVIL),
        panel.preview_strip([], drawn, None),
        photos.refusals_html([EVIL], "teapot-1"),
        panel.announcement(job, EVIL),
    ]
    for html in shown:
        assert "<img src=x" not in html
    assert sum(html.count("&lt;img") for html in shown) >= 9


def test_a_stop_on_its_way_is_told_and_not_asked_again() -> None:
    html = progress.job_html(a_job(stop_asked=True), "Rex")
    assert "Stopping" in html and 'data-do="cancel"' not in html
    assert "Stopping" not in progress.job_html(a_job(state="cancelled", stop_asked=True), "Rex")


def test_the_announcement_changes_with_the_state_and_each_tenth_only() -> None:
    spoken = [panel.announcement(a_job(step=step), "Rex") for step in range(301)]
    changes = [now for before, now in zip(spoken, spoken[1:], strict=False) if before != now]
    assert changes == [f"Learning Rex, {percent} %" for percent in range(10, 101, 10)]


def test_the_strip_is_quiet_when_nothing_runs() -> None:
    assert 'data-state="none"' in header.strip_html([], str)


def test_the_strip_names_who_waits_and_when_it_starts() -> None:
    waiting = [a_job(id=f"job-{n}", state="queued", position=n - 2, starts_in=60.0 * n) for n in range(2, 8)]
    html = header.strip_html([a_job(), *waiting], lambda _: "Rex")
    assert "Next in line, starts in about 2 min" in text(html) and "2nd in line, starts in about 3 min" in text(html)
    assert "and 3 more in line" in html and html.count('class="in-line"') == 3
    assert html.count('data-do="up"') == 2  # the first cannot move up


def test_the_strip_of_a_queue_that_has_not_begun() -> None:
    html = header.strip_html([a_job(state="queued", position=0)], lambda _: "Rex")
    assert 'id="strip-line"' in html and 'data-state="queued"' in html and "Next in line" in html


@pytest.mark.parametrize(
    ("number", "words"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]
)
def test_ordinals(number: int, words: str) -> None:
    assert panel.ordinal(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3570, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_time_left(seconds: float, words: str) -> None:
    assert panel.time_left(seconds) == words


def test_the_best_step_can_be_used_and_the_newest_tried() -> None:
    html = progress.choice_html(a_job(best_step=100), a_subject(), [50, 100, 150])
    assert re.findall('data-do="([a-z]+)" data-job="job-1" data-step="([0-9]*)"', html) == [
        ("use", "100"),
        ("try", "150"),
    ]
    used = progress.choice_html(a_job(state="done"), a_subject(chosen_job="job-1", chosen_step=100), [50, 100])
    assert "in use" in used and 'data-do="use" data-job="job-1" data-step=""' in used and 'data-do="try"' not in used
    left_alone = progress.choice_html(a_job(state="done", best_step=300), a_subject(), [100, 300])
    assert "in use" in left_alone and "button" not in left_alone, "the last step is what is used anyway"


def test_only_what_is_missing_is_asked_for() -> None:
    assert "Say what it is" in progress.draft_html(a_subject(class_noun=""))
    html = progress.draft_html(a_subject(name=EVIL))
    assert "Say what it is" not in html and "press Train" in html and "<img" not in html


def test_previews_come_by_step_after_the_photos() -> None:
    drawn = [Preview(step, "a photo", 0, Path(f"{step}.jpg"), 0.5) for step in (50, 0)]
    html = panel.preview_strip([Path("01.jpg")], drawn, 50)
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == [
        "Your photos",
        "Step 0",
        "★ Step 50, closest",
    ]
    assert panel.preview_strip([Path("01.jpg")], [], None) == ""


def test_a_training_that_has_other_photos_than_are_shown_says_so(tmp_path: Path) -> None:
    studio: Any = FakeStudio(tmp_path)
    made = studio.subjects.create_from_sample("teapot")
    job = studio.jobs.put(a_job(subject_id=made.id, state="queued"))
    shown = studio.subjects.photos(made.id)
    assert not photos.are_others(studio, made.id, shown)
    studio.subjects.remove_photo(made.id, "05.jpg")
    studio.jobs.kept[job.id] = [photo.name for photo in shown]
    assert photos.are_others(studio, made.id, studio.subjects.photos(made.id))
    studio.jobs.put(replace(job, state="done"))
    assert not photos.are_others(studio, made.id, studio.subjects.photos(made.id))


def test_a_training_that_is_about_to_start_starts_soon() -> None:
    assert "starts soon" in panel.waiting(a_job(state="queued", position=0, starts_in=0.2))
    assert "starts in about 6 s" in panel.waiting(a_job(state="queued", position=0, starts_in=6.0))


def test_photos_show_their_findings_and_how_many_are_missing(tmp_path: Path) -> None:
    studio = FakeStudio(tmp_path)
    made = studio.subjects.create_from_sample("teapot")
    studio.subjects.findings["02.jpg"] = ("It is <b>blurred</b>.",)
    for name in ("03.jpg", "04.jpg", "05.jpg"):
        studio.subjects.remove_photo(made.id, name)
    html = photos.thumbs_html(studio.subjects.photos(made.id))
    assert 'data-count="2"' in html and "Fewer than 3 teach little" in html
    assert "⚠ It is &lt;b&gt;blurred&lt;/b&gt;." in html
    assert 'data-photo="01.jpg" aria-label="Remove photo 1, 01.jpg"' in html
