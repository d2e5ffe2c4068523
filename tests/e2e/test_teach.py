"""The page in a real browser: photos, Train, a picture; reloads, restarts, mistakes and attacks on the way."""

import json
import time
import urllib.request
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from served import Server, status_of

pytest.importorskip("gradio")
pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
FakeStudio = Callable[..., Server]
OpenPage = Callable[..., Any]


def fill_form(page: Any, photos: list[Path], noun: str = "teapot", quality: str = "Quick") -> None:
    page.locator("#photos input[type=file]").set_input_files(photos)
    page.locator("#photos img").nth(len(photos) - 1).wait_for()
    page.locator("#noun input, #noun textarea").fill(noun)
    page.get_by_label(quality).check()


def wait_for_state(page: Any, state: str, timeout_s: float = 30) -> None:
    page.locator(f"#job-line[data-state={state}]").wait_for(timeout=1000 * timeout_s)


def step_of(page: Any) -> int:
    return int(page.locator("#job-step").inner_text())


def wait_for_step(page: Any, step: int, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while page.locator("#job-step").count() == 0 or step_of(page) < step:
        assert time.monotonic() < end, f"step {step} did not come"
        time.sleep(0.1)


def press(page: Any, button: str) -> None:
    """Press a button once it can be pressed."""
    page.locator(f"#{button}:not([disabled])").click()


def wait_for_error(page: Any, words: str) -> None:
    page.get_by_test_id("toast-body").filter(has_text=words).wait_for()
    assert "Traceback" not in page.locator("body").inner_text()


def first_picture(page: Any) -> Image.Image:
    page.locator("#gallery img").first.wait_for(timeout=60_000)
    with urllib.request.urlopen(page.locator("#gallery img").first.get_attribute("src")) as answer:
        return Image.open(BytesIO(answer.read()))


@pytest.fixture
def photos(subject_photos: Path) -> list[Path]:
    found = sorted(subject_photos.glob("*.jpg"))
    assert len(found) == 5
    return found


def test_from_photos_to_a_picture(fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]) -> None:
    page = open_page(fake_studio())
    assert page.locator("#job-line").get_attribute("data-state") == "none"
    assert page.locator("#stop").is_disabled() and page.locator("#make").is_disabled()
    fill_form(page, photos)
    press(page, "train")
    wait_for_state(page, "training")
    assert page.locator("#train").is_disabled() and page.locator("#make").is_disabled()
    page.locator("#job svg.loss-curve").wait_for()
    wait_for_step(page, 10)
    before = step_of(page)

    page.reload(wait_until="domcontentloaded")  # the training does not notice
    wait_for_state(page, "training")
    assert step_of(page) >= before
    page.locator("#photos img").nth(4).wait_for()
    assert page.locator("#noun input, #noun textarea").input_value() == "teapot"
    assert page.get_by_label("Quick").is_checked()

    press(page, "stop")
    wait_for_state(page, "stopped")
    stopped_at = step_of(page)
    press(page, "train")  # goes on with the same subject
    wait_for_step(page, stopped_at + 1)
    wait_for_state(page, "done")
    assert page.locator("#job-line").get_attribute("data-subject") == "teapot-1"

    page.locator("#make:not([disabled])").wait_for()
    assert page.locator("#prompt textarea").input_value() == "a photo of sks teapot on the beach"
    page.locator("#seed input").fill("7")
    press(page, "make")
    page.locator("#gallery img").nth(3).wait_for()
    picture = first_picture(page)
    remembered = json.loads(picture.info["dora_diffusion"])
    assert picture.format == "PNG" and remembered["seed"] == 10 and remembered["adapter"] == "teapot-1"
    assert "a photo of sks teapot on the beach" in picture.info["parameters"]

    page.reload(wait_until="domcontentloaded")  # pictures are files, so they stay
    page.locator("#gallery img").nth(3).wait_for()


def test_mistakes_are_told_in_plain_words(
    fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path], tmp_path: Path
) -> None:
    server = fake_studio(pause_s=0.005)
    page = open_page(server)
    press(page, "train")
    wait_for_error(page, "Add photos of your subject first")
    page.locator("#photos input[type=file]").set_input_files(photos)
    page.locator("#photos img").nth(4).wait_for()
    press(page, "train")
    wait_for_error(page, "What is it?")
    press(page, "train")
    page.locator("#noun input, #noun textarea").fill('<img src=x onerror="window.hacked=1">')
    press(page, "train")
    wait_for_state(page, "done")
    assert "<img src=x" in page.locator("#job-line").inner_text()
    assert page.evaluate("window.hacked") is None
    page.locator("#make:not([disabled])").wait_for()
    page.locator("#prompt textarea").fill("explode")
    press(page, "make")
    wait_for_error(page, "Something went wrong that should not (reference")
    assert "a fault with a traceback" in (server.home / "app.log").read_text()
    page.locator("#prompt textarea").fill("")
    press(page, "make")
    wait_for_error(page, "Write what the picture shall show")

    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    page.locator("#photos input[type=file]").set_input_files([text])
    page.locator("#noun input, #noun textarea").fill("mug")
    time.sleep(1)
    press(page, "train")
    wait_for_error(page, "text.jpg is not a photo")


def test_a_page_and_its_training_survive_the_server(
    fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]
) -> None:
    server = fake_studio(pause_s=0.1)
    page = open_page(server)
    fill_form(page, photos)
    press(page, "train")
    wait_for_step(page, 3)
    before = step_of(page)
    server.kill()
    server.start()
    wait_for_step(page, before + 20)  # the same page, without a reload
    other = open_page(server)  # another browser sees the same training
    wait_for_step(other, before + 20)
    assert other.locator("#job-line").get_attribute("data-state") == "training"


def test_a_reason_of_the_trainer_is_shown(fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]) -> None:
    page = open_page(fake_studio("fail"), width=390, height=844)
    fill_form(page, photos)
    press(page, "train")
    wait_for_state(page, "failed")
    assert "unstable> at step 3. Halve the learning rate." in page.locator("#job").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # fits a phone


def test_only_what_may_be_seen_is_served(fake_studio: FakeStudio, open_page: OpenPage, photos: list[Path]) -> None:
    server = fake_studio(pause_s=0.005)
    page = open_page(server)
    fill_form(page, photos)
    press(page, "train")
    wait_for_state(page, "done")
    page.reload(wait_until="domcontentloaded")
    page.locator("#photos img").nth(4).wait_for()
    files = f"{server.url}/gradio_api/file="
    subject = server.home / "subjects" / "teapot-1"
    assert status_of(f"{files}{server.home}/media/photos/teapot-1/01.jpg") == 200
    for secret in (subject / "config.yaml", subject / "trainer.log", subject / "photos" / "01.jpg", "/etc/passwd"):
        assert status_of(f"{files}{secret}") in (403, 404), secret
    assert status_of(f"{files}{server.home}/media/../subjects/teapot-1/config.yaml") in (403, 404)
    assert status_of(f"{server.url}/config", Host="evil.example") == 400
    assert status_of(f"{server.url}/monitoring") != 200


def test_the_page_is_there_soon(serve: Callable[..., Server], repository: Path) -> None:
    began = time.monotonic()
    serve(repository / "app.py")
    assert time.monotonic() - began < 30  # 10 s is the aim on two idle cores; tests share them


@pytest.mark.slow
def test_the_real_trainer_and_the_real_model(
    serve: Callable[..., Server], open_page: OpenPage, photos: list[Path]
) -> None:
    page = open_page(serve(HERE / "serve_short.py"))
    fill_form(page, photos)
    press(page, "train")
    wait_for_state(page, "preparing", 60)
    wait_for_step(page, 2, 300)
    before = step_of(page)
    page.reload(wait_until="domcontentloaded")
    wait_for_step(page, before + 2, 60)
    press(page, "stop")
    wait_for_state(page, "stopped", 60)
    stopped_at = step_of(page)
    assert before <= stopped_at < 24
    press(page, "train")
    wait_for_state(page, "done", 180)
    assert step_of(page) == 24
    press(page, "make")
    picture = first_picture(page)
    remembered = json.loads(picture.info["dora_diffusion"])
    assert picture.size == (128, 128) and remembered["adapter"] == "teapot-1" and remembered["strength"] == 1.0
    assert len(picture.convert("RGB").getcolors(128 * 128)) > 500  # a picture, not a plain square
