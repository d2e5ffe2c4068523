"""Create in a real browser: from a subject to pictures, their settings back, waiting in line, leaving in the middle."""

import json
import time
import urllib.request
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from served import Server
from tabs import TAUGHT, choose, fits, show, text_of, wait_for_line, wait_until, write

pytestmark = pytest.mark.e2e

Serve = Callable[..., Server]
OpenPage = Callable[..., Any]


def open_create(page: Any) -> None:
    """Create, with the subject that the trainer has just finished."""
    show(page, "Create")
    page.locator("#create-prompt textarea").wait_for()
    wait_until(page, "create-prompt", "a photo of sks teapot on the beach", 60)


def test_from_a_subject_to_pictures_and_back(serve: Serve, open_page: OpenPage, tmp_path: Any) -> None:
    page = open_page(serve(TAUGHT, 0.0))
    open_create(page)
    assert page.locator("#create-subject input").input_value() == "Rex (sks teapot)"
    assert page.locator("#create-stop").is_disabled()

    write(page, "create-prompt", "a photo of skz teapot")  # a misspelt trigger is told, and mended at a press
    page.locator("#create-help .prompt-hint").filter(has_text="skz").wait_for()
    page.locator("#create-fix").filter(has_text="Correct it").click()
    wait_until(page, "create-prompt", "a photo of sks teapot")
    page.locator("#create-scene-snow").click()
    wait_until(page, "create-prompt", "a photo of sks teapot in the snow")
    page.locator("#create-style-watercolor").click()
    wait_until(page, "create-prompt", "a watercolor painting of sks teapot in the snow")

    write(page, "create-seed", "7")
    page.locator("#create-count input[type=number]").fill("2")
    page.locator("#create-prompt textarea").focus()
    page.keyboard.press("Shift+Enter")
    assert "seeds 7 and 8" in wait_for_line(page, "create", "done")
    page.locator("#create-gallery img").nth(1).wait_for()
    alts = [image.get_attribute("alt") for image in page.locator("#create-gallery img").all()]
    assert "a watercolor painting of sks teapot in the snow, seed 7" in alts
    page.locator("#history-count[data-count='2']").wait_for()

    page.locator("#history-grid .tile").last.click()  # the oldest: seed 7
    page.locator("#history-detail .large img[alt$='seed 7']").wait_for()
    with page.expect_download() as download:
        page.locator("#history-download").click()
    file = tmp_path / "kept.png"
    download.value.save_as(file)
    kept = Image.open(file)
    assert kept.format == "PNG" and json.loads(kept.info["dora_diffusion"])["seed"] == 7
    shown = page.locator("#history-detail .large img").evaluate("image => image.src")
    with urllib.request.urlopen(shown) as answer:
        assert Image.open(BytesIO(answer.read())).tobytes() == kept.tobytes()

    choose(page, "create-subject", " alone")
    write(page, "create-prompt", "something else")
    page.get_by_role("button", name="Settings from a picture").click()
    page.locator("#create-file input[type=file]").set_input_files(file)
    wait_until(page, "create-prompt", "a watercolor painting of sks teapot in the snow")
    wait_until(page, "create-seed", "7")
    assert page.locator("#create-subject input").input_value() == "Rex (sks teapot)"

    text = tmp_path / "other.png"
    Image.new("RGB", (8, 8)).save(text)
    page.locator("#create-file input[type=file]").set_input_files(text)
    page.get_by_test_id("toast-body").first.wait_for()
    assert "Traceback" not in page.locator("body").inner_text()

    page.get_by_role("button", name="Delete", exact=True).first.click()
    page.get_by_role("button", name="Delete it").click()
    page.locator("#history-count[data-count='1']").wait_for()
    page.reload(wait_until="domcontentloaded")
    show(page, "Create")
    page.locator("#history-count[data-count='1']").wait_for()


def test_five_pages_wait_in_line_and_nothing_else_waits(serve: Serve, open_page: OpenPage) -> None:
    server = serve(TAUGHT, 0.12)
    pages = [open_page(server) for _ in range(5)]
    for count, page in zip((8, 1, 1, 1, 1), pages, strict=True):
        open_create(page)
        page.locator("#create-count input[type=number]").fill(str(count))
    for page in pages:  # the first takes 24 s; all that follows happens meanwhile
        page.locator("#create-generate").click()
    wait_for_line(pages[0], "create", "working")
    waiting = [wait_for_line(page, "create", "waiting") for page in pages[1:]]
    assert all("Waiting behind" in words or "Starting" in words for words in waiting)

    began = time.monotonic()  # the page answers while five orders are under way
    pages[4].locator("#create-scene-moon").click()
    wait_until(pages[4], "create-prompt", "a photo of sks teapot on the moon", 5)
    assert time.monotonic() - began < 5

    pages[4].locator("#create-stop").click()  # leaves the line; the others go on
    assert "Stopped" in wait_for_line(pages[4], "create", "stopped")
    pages[3].reload(wait_until="domcontentloaded")  # nobody draws for a page that is gone
    for page, words in zip(pages[:3], ("8 pictures", "1 picture", "1 picture"), strict=True):
        assert words in wait_for_line(page, "create", "done")
    time.sleep(4)  # what the reloaded page had ordered would be drawn by now
    pages[0].reload(wait_until="domcontentloaded")
    show(pages[0], "Create")
    pages[0].locator("#history-count[data-count='10']").wait_for()


def in_view(page: Any, selector: str) -> bool:
    """Whether all of it is seen without scrolling, and nothing lies over its middle."""
    return bool(
        page.locator(selector).first.evaluate(
            """element => {
              const {left, right, top, bottom} = element.getBoundingClientRect();
              const over = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
              return top >= 0 && bottom <= innerHeight && (element.contains(over) || over.contains(element));
            }"""
        )
    )


@pytest.mark.parametrize("keys", ["Control+Enter", "Meta+Enter", "Shift+Enter"])
def test_the_prompt_draws_by_keys_once_each(serve: Serve, open_page: OpenPage, keys: str) -> None:
    page = open_page(serve(TAUGHT, 0.0))
    open_create(page)
    page.locator("#create-count input[type=number]").fill("1")
    page.locator("#create-prompt textarea").focus()
    page.keyboard.press("Enter")  # a new line, and nothing else
    assert page.locator("#create-state-line[data-state=idle]").count() == 1
    page.keyboard.press(keys)
    wait_for_line(page, "create", "done")
    page.locator("#history-count[data-count='1']").wait_for()
    assert (
        page.locator("#create-gallery img").first.get_attribute("alt").startswith("a photo of sks teapot on the beach")
    )
    assert page.locator("#create-prompt textarea").evaluate("field => field === document.activeElement")


@pytest.mark.parametrize("width", [800, 1280])
def test_all_pictures_are_seen_whole_beside_the_form_and_stay_there(
    serve: Serve, open_page: OpenPage, width: int
) -> None:
    page = open_page(serve(TAUGHT, 0.0), width=width, height=900)
    open_create(page)
    page.locator("#create-generate").click()
    wait_for_line(page, "create", "done")
    page.locator("#create-gallery img").nth(3).wait_for()
    whole = """() => {
      const frame = document.querySelector('#create-gallery').getBoundingClientRect();
      return [...document.querySelectorAll('#create-gallery img')].every((image) => {
        const {top, bottom, left, right} = image.getBoundingClientRect();
        const inside = top >= frame.top && bottom <= frame.bottom && left >= frame.left && right <= frame.right;
        return image.complete && inside && image.parentElement.scrollHeight <= image.parentElement.clientHeight + 1;
      });
    }"""
    page.wait_for_function(whole)
    page.locator("#create-generate").evaluate("button => button.scrollIntoView({block: 'end'})")
    assert page.evaluate("scrollY") > 0
    assert in_view(page, "#create-state-line") and in_view(page, "#strip-line"), "neither lies over the other"


def test_on_a_phone_what_is_drawn_comes_into_view_and_the_focus_stays(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(TAUGHT, 0.0), width=390, height=844)
    open_create(page)
    page.get_by_role("button", name="More settings").click()  # a form that is longer than the screen
    page.locator("#create-prompt textarea").focus()
    assert not in_view(page, "#create-state-line")
    page.keyboard.press("Control+Enter")
    wait_for_line(page, "create", "done")
    page.locator("#create-gallery img").nth(3).wait_for()
    assert in_view(page, "#create-state-line") and in_view(page, "#create-gallery img >> nth=0")
    assert page.locator("#create-prompt textarea").evaluate("field => field === document.activeElement")

    page.locator("#history-grid .tile").first.click()
    page.locator("#history-detail").get_by_role("button", name="Reuse settings").click()
    page.locator("#create-note .notice").wait_for()
    page.wait_for_function("""() => {
      const {top, bottom} = document.querySelector('#create-note .notice').getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight;
    }""")
    assert in_view(page, "#create-generate"), "what was taken over is told where it is drawn again"


def test_on_a_phone_and_by_keyboard(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(TAUGHT, 0.0), width=390, height=844)
    open_create(page)
    assert fits(page)
    page.locator("#create-generate").focus()
    page.keyboard.press("Enter")
    wait_for_line(page, "create", "done")
    page.locator("#history-grid .tile").first.focus()
    page.keyboard.press("Enter")
    page.locator("#history-detail").get_by_role("button", name="Reuse settings").focus()
    page.keyboard.press("Enter")
    page.locator("#create-note .notice").wait_for()
    assert int(text_of(page, "create-seed")) >= 0 and text_of(page, "create-count") == "1"
    assert fits(page)
