"""Teach in a real browser: photos, Train, what comes of it; reloads, restarts, mistakes and attacks on the way."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Server, status_of
from teaching import act, add_photos, fill_form, press, step_of, wait_for_state, wait_for_step, write

pytest.importorskip("gradio")
pytestmark = pytest.mark.e2e

FakeStudio = Callable[..., Server]
OpenPage = Callable[..., Any]


@pytest.fixture
def photos(subject_photos: Path) -> list[Path]:
    found = sorted(subject_photos.glob("*.jpg"))
    assert len(found) == 5
    return found


def test_from_photos_to_a_trained_subject(fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]) -> None:
    page = open_page(fake_studio(pause_s=0.15))  # it must still be learning when the page is back and Cancel is pressed
    assert page.locator("#job-line").get_attribute("data-state") == "none"
    assert page.locator("#strip-line").get_attribute("data-state") == "none"
    fill_form(page, photos)
    press(page, "teach-train")
    wait_for_state(page, "running")
    assert page.locator("#teach-train").is_disabled()
    page.locator("#teach-curves svg.loss-curve").wait_for()
    wait_for_step(page, 25)
    page.locator("#teach-previews img").first.wait_for()
    page.locator("#teach-curves svg.likeness-curve").wait_for()
    assert page.locator("#strip [role=progressbar]").get_attribute("aria-valuemax") == "120"
    before = step_of(page)

    page.reload(wait_until="domcontentloaded")  # the training does not notice
    wait_for_state(page, "running")
    assert step_of(page) >= before
    page.locator("#teach-thumbs img").nth(4).wait_for()
    assert page.locator("#teach-noun input").input_value() == "teapot"
    assert page.get_by_label("Quick").is_checked()

    act(page, "job", "cancel")
    wait_for_state(page, "cancelled")
    stopped_at = step_of(page)
    act(page, "job", "resume")
    wait_for_step(page, stopped_at + 1)
    wait_for_state(page, "done")
    assert page.locator("#job-line").get_attribute("data-subject") == "subject-1"  # named when its first photo came
    assert page.locator("#announcer").inner_text().strip() == "teapot 1 is ready"
    act(page, "job", "create")
    page.get_by_role("tab", name="Create", selected=True).wait_for()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_first_visitor_sees_what_teaching_is(fake_studio: FakeStudio, open_page: OpenPage, width: int) -> None:
    page = open_page(fake_studio(), width=width)
    example = page.locator("#teach-example img")
    example.nth(5).wait_for()
    example.last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('#teach-example img')].every((img) => img.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    said = page.locator("#teach-photos [data-testid=upload-text]")
    assert said.evaluate("(text) => getComputedStyle(text, '::after').content") == (
        '"Drop photos here, or click to choose"'
    )
    assert said.evaluate("(text) => getComputedStyle(text).fontSize") == "0px", "Gradio's words are not seen"
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#job-line[data-state=draft]").wait_for()
    assert page.locator("#teach-example").count() == 0
    press(page, "teach-new")
    page.locator("#job-line[data-state=none]").wait_for()
    assert page.locator("#teach-example").count() == 0, "who has a subject knows"


def test_a_draft_outlives_a_reload(
    fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path], tmp_path: Path
) -> None:
    page = open_page(fake_studio())
    text = tmp_path / "holiday.jpg"
    text.write_text("not a picture")
    page.locator("#teach-photos input[type=file]").set_input_files([*photos[:3], text])
    page.locator("#teach-refused", has_text="holiday.jpg").wait_for()
    page.locator("#teach-thumbs img").nth(2).wait_for()
    page.locator("#teach-thumbs button[data-do=remove]").last.click()
    page.locator("#teach-thumbs [data-count='2']").wait_for()
    page.wait_for_function("document.activeElement.dataset.do === 'remove'")  # not the page's top
    assert "Fewer than 3 teach little" in page.locator("#teach-thumbs").inner_text()
    page.reload(wait_until="domcontentloaded")
    page.locator("#teach-thumbs [data-count='2']").wait_for()
    add_photos(page, photos[3:])
    write(page, "teach-noun", "teapot")
    page.locator("#job-line", has_text="Teapot 1 is ready to be taught").wait_for()
    page.reload(wait_until="domcontentloaded")
    page.locator("#teach-thumbs [data-count='4']").wait_for()
    assert page.locator("#teach-noun input").input_value() == "teapot"
    press(page, "teach-new")
    page.locator("#teach-thumbs [data-count='0']").wait_for()
    assert page.locator("#teach-noun input").input_value() == ""


def test_a_name_is_not_taken_from_who_is_writing_it(
    fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]
) -> None:
    """What the subject is called by itself arrives while the next field is being written."""
    page = open_page(fake_studio())
    add_photos(page, photos)
    page.locator("#teach-noun input").fill("teapot")
    page.locator("#teach-name input").press_sequentially("Tea & <Co>", delay=150)
    page.locator("#job-line", has_text="Teapot 1 is ready to be taught").wait_for()  # the answer is there
    assert page.locator("#teach-name input").input_value() == "Tea & <Co>"
    page.locator("#teach-name input").blur()
    page.locator("#job-line", has_text="Tea & <Co> is ready to be taught").wait_for()


def test_what_was_begun_is_found_again(fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]) -> None:
    page = open_page(fake_studio())
    page.locator("#teach-samples button", has_text="Robot").click()
    page.locator("#job-line[data-state=draft]").wait_for()
    press(page, "teach-new")
    page.locator("#teach-thumbs [data-count='0']").wait_for()
    add_photos(page, photos[:2])
    page.get_by_role("tab", name="Subjects").click()  # another one is looked at
    page.locator(".subject-card", has_text="robot").get_by_role("button", name="Open").click()
    page.get_by_role("tab", name="Teach").click()
    page.locator("#teach-thumbs [data-count='5']").wait_for()
    press(page, "teach-new")
    page.locator("#teach-thumbs [data-count='2']").wait_for()
    press(page, "teach-new")
    page.locator("#teach-thumbs [data-count='0']").wait_for()


def test_what_is_missing_is_told_beside_the_button(
    fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]
) -> None:
    page = open_page(fake_studio(pause_s=0.005))
    press(page, "teach-train")
    page.locator("#teach-fault [role=alert]", has_text="Add photos of your subject first").wait_for()
    add_photos(page, photos)
    press(page, "teach-train")
    page.locator("#teach-fault [role=alert]", has_text="What is it?").wait_for()
    assert page.locator("#job-line").get_attribute("data-state") == "draft"
    write(page, "teach-noun", "my very old green teapot")
    press(page, "teach-train")
    page.locator("#teach-fault [role=alert]", has_text="at most 4 are taken, got 5").wait_for()
    assert page.locator("#job-line").get_attribute("data-state") == "draft"
    write(page, "teach-noun", '<img src=x onerror="window.hacked=1">')
    press(page, "teach-train")
    wait_for_state(page, "done")
    assert "<img src=x" in page.locator("#job-line").inner_text()
    assert page.evaluate("window.hacked") is None


def test_a_sample_is_one_click_away_and_a_double_click_is_one_training(
    fake_studio: FakeStudio, open_page: OpenPage
) -> None:
    server = fake_studio(pause_s=0.1)
    page = open_page(server)
    page.locator("#teach-samples button", has_text="Robot").click()
    page.locator("#teach-thumbs img").nth(2).wait_for()
    page.wait_for_function("document.activeElement.closest('#teach-noun')")
    page.locator("#teach-train").dblclick()
    wait_for_state(page, "running")
    assert len(list((server.home / "jobs").iterdir())) == 1


def test_advanced_settings_reach_the_training(fake_studio: FakeStudio, open_page: OpenPage) -> None:
    server = fake_studio(pause_s=0.1)
    page = open_page(server)
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    page.locator("#teach-advanced > button").click()
    page.locator("#group-adapter > button").click()
    page.locator("#set-adapter-rank input").fill("0")
    page.locator("#teach-changed [role=alert]", has_text="rank").wait_for()
    page.locator("#set-adapter-rank input").fill("4")
    page.locator("#teach-changed [data-changed='1']").wait_for()
    page.locator("#teach-changed [role=alert]").wait_for(state="detached")
    assert "--rank 4" in page.locator("#teach-command textarea").input_value()
    page.locator("#teach-quality label:has-text('Best')").click()
    time.sleep(1)
    assert page.locator("#set-adapter-rank input").input_value() == "4", "a change outlives another quality"
    press(page, "teach-train")
    wait_for_state(page, "running")
    config = (server.home / "jobs" / "job-1" / "config.yaml").read_text()
    assert re.search(r"^  rank: 4$", config, re.MULTILINE)
    assert "rank 4" in page.locator("#job").inner_text()


def test_a_page_and_its_training_survive_the_server(
    fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]
) -> None:
    server = fake_studio(pause_s=0.1)
    page = open_page(server)
    fill_form(page, photos, quality="Best")
    press(page, "teach-train")
    wait_for_step(page, 3)
    before = step_of(page)
    server.kill()
    page.locator("#connection", has_text="Not connected").wait_for()
    server.start()
    wait_for_step(page, before + 20)  # the same page, without a reload
    page.locator("#connection", has_text="Not connected").wait_for(state="detached")
    other = open_page(server)  # another browser sees the same training
    wait_for_step(other, before + 20)
    assert other.locator("#strip-line").get_attribute("data-state") == "running"


def test_a_killed_trainer_is_interrupted_and_goes_on(fake_studio: FakeStudio, open_page: OpenPage) -> None:
    server = fake_studio(pause_s=0.05)
    page = open_page(server)
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    press(page, "teach-train")
    wait_for_step(page, 60)
    os.kill(server.trainers()[0], signal.SIGKILL)
    page.locator("#job-line:is([data-state=interrupted], [data-state=failed])").wait_for()
    page.locator("#job button[data-do=remedy], #job button[data-do=resume]").first.click()
    wait_for_state(page, "running")
    assert step_of(page) > 40


def test_two_trainings_wait_in_line(fake_studio: FakeStudio, open_page: OpenPage) -> None:
    page = open_page(fake_studio(pause_s=0.2))
    for name in ("Teapot", "Robot", "Backpack"):
        page.locator("#teach-samples button", has_text=name).click()
        page.locator("#teach-thumbs img").first.wait_for()
        press(page, "teach-train")
        page.locator("#job-line:is([data-state=running], [data-state=queued])").wait_for()
        press(page, "teach-new")
        page.locator("#teach-thumbs [data-count='0']").wait_for()
    waiting = page.locator("#strip .in-line")
    waiting.nth(1).wait_for()
    assert "robot" in waiting.nth(0).inner_text() and "2nd in line" in waiting.nth(1).inner_text()
    waiting.nth(1).locator("button[data-do=up]").click()
    waiting.nth(0).filter(has_text="backpack").wait_for()
    act(page, "strip", "cancel")  # what runs; the next one starts
    page.locator("#strip-line", has_text="backpack").wait_for(timeout=60_000)
    assert waiting.count() == 1
    act(page, "strip", "view")
    page.locator("#job-line[data-subject=backpack-1]").wait_for()


@pytest.mark.parametrize(("mode", "code"), [("oom", "out_of_memory"), ("nan", "unstable")])
def test_a_failure_is_told_with_its_remedy(mode: str, code: str, fake_studio: FakeStudio, open_page: OpenPage) -> None:
    page = open_page(fake_studio(mode, 0.02), width=390, height=844)
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    press(page, "teach-train")
    page.locator(f"#job .failure[data-code={code}]").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # fits a phone
    act(page, "job", "remedy")
    wait_for_state(page, "done")


def test_the_last_view_is_remembered(fake_studio: FakeStudio, open_page: OpenPage) -> None:
    page = open_page(fake_studio())
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    page.locator("#teach-samples", has_text="Try").wait_for(state="hidden")
    press(page, "teach-new")
    page.locator("#teach-samples button", has_text="Robot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    page.get_by_role("tab", name="Export").click()
    time.sleep(0.5)
    page.reload(wait_until="domcontentloaded")
    page.get_by_role("tab", name="Export", selected=True).wait_for()
    page.get_by_role("tab", name="Teach").click()
    page.locator("#teach-noun input").wait_for()
    assert page.locator("#teach-noun input").input_value() == "robot"
    stored = page.evaluate("JSON.stringify(localStorage)")
    assert "robot" not in stored, "what the browser keeps is not readable by the way"


def test_only_what_may_be_seen_is_served(fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]) -> None:
    server = fake_studio(pause_s=0.005)
    page = open_page(server)
    fill_form(page, photos)
    press(page, "teach-train")
    wait_for_state(page, "done")
    files = f"{server.url}/gradio_api/file="
    home = server.home
    assert status_of(f"{files}{home}/media/photos/subject-1/01.jpg") == 200
    secrets = [home / "studio.db", home / "app.log", home / "jobs/job-1/config.yaml", home / "jobs/job-1/trainer.log"]
    for secret in (*secrets, home / "subjects" / "subject-1" / "photos" / "01.jpg", "/etc/passwd"):
        assert status_of(f"{files}{secret}") in (403, 404), secret
    assert status_of(f"{files}{home}/media/../studio.db") in (403, 404)
    assert status_of(f"{server.url}/monitoring") != 200


def test_foreign_hosts_and_pages_are_refused(fake_studio: FakeStudio, open_page: OpenPage) -> None:
    server = fake_studio()
    assert status_of(f"{server.url}/config", Host="evil.example") == 400
    join = f"{server.url}/gradio_api/queue/join"
    assert status_of(join, body=b"{}", Origin="http://evil.example") == 403
    assert status_of(join, body=b"{}", Origin=server.url) == 422  # ours, and says nothing
    page = open_page(server)  # asserts at its end that nobody else was asked
    policy = page.evaluate("fetch('/config').then(answer => answer.headers.get('content-security-policy'))")
    assert "frame-ancestors 'none'" in policy
    assert page.evaluate("fetch('http://127.0.0.1:1/').catch(error => 'refused')") == "refused"


def test_a_second_studio_only_shows(fake_studio: FakeStudio, open_page: OpenPage) -> None:
    first = fake_studio(pause_s=0.1)
    page = open_page(first)
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    second = Server(first.command, first.home)
    second.start()
    try:
        other = open_page(second)
        other.locator("#banner [data-read-only=true]").wait_for()
        press(other, "teach-train")
        other.get_by_test_id("toast-body").wait_for()
        assert other.locator("#job-line").get_attribute("data-state") == "draft"
        assert page.locator("#banner [data-read-only=true]").count() == 0
    finally:
        second.end()


def test_the_page_is_there_soon(serve: Callable[..., Server], repository: Path) -> None:
    began = time.monotonic()
    serve(repository / "app.py", "--no_browser")
    assert time.monotonic() - began < 30  # 10 s is the aim on two idle cores; tests share them


@pytest.mark.slow
def test_the_real_trainer(serve: Callable[..., Server], open_page: OpenPage, repository: Path) -> None:
    server = serve(repository / "app.py", "--no_browser")
    page = open_page(server)
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    page.locator("#teach-advanced > button").click()
    page.locator("#group-run > button").click()
    page.locator("#set-run-max-train-steps input").fill("24")
    page.locator("#teach-changed [data-changed='1']").wait_for()
    press(page, "teach-train")
    wait_for_state(page, "running", 300)
    wait_for_step(page, 2, 300)
    before = step_of(page)
    page.reload(wait_until="domcontentloaded")
    wait_for_step(page, before + 2, 60)
    act(page, "job", "cancel")
    wait_for_state(page, "cancelled", 60)
    assert before <= step_of(page) < 24
    act(page, "job", "resume")
    wait_for_state(page, "done", 240)
    assert step_of(page) == 24
    page.locator("#teach-previews img").nth(8).wait_for()


def test_what_is_written_while_photos_arrive_stays(
    fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]
) -> None:
    page = open_page(fake_studio())
    page.route("**/upload*", lambda route: (time.sleep(1), route.continue_()))  # a slow line
    page.locator("#teach-photos input[type=file]").set_input_files(photos)
    page.locator("#teach-noun input, #teach-noun textarea").fill("teapot")
    page.locator("#teach-thumbs img").nth(len(photos) - 1).wait_for()
    page.locator("#job-line[data-state=draft]").filter(has_text="eapot").wait_for()  # kept without the field being left
    assert page.locator("#teach-noun input, #teach-noun textarea").input_value() == "teapot"
    page.reload(wait_until="domcontentloaded")
    page.locator("#teach-thumbs img").nth(len(photos) - 1).wait_for()
    expect_value = page.locator("#teach-noun input, #teach-noun textarea")
    expect_value.and_(page.locator(":not([value=''])")).wait_for()
    assert expect_value.input_value() == "teapot"
