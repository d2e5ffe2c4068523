"""What a user does on the Teach tab, for tests of every tab."""

import time
from pathlib import Path
from typing import Any


def add_photos(page: Any, photos: list[Path]) -> None:
    """Give photos, and wait until they are shown."""
    before = page.locator("#teach-thumbs img").count()
    page.locator("#teach-photos input[type=file]").set_input_files(photos)
    page.locator("#teach-thumbs img").nth(before + len(photos) - 1).wait_for()


def write(page: Any, field: str, words: str) -> None:
    """Write into a field and leave it."""
    box = page.locator(f"#{field} input, #{field} textarea")
    box.fill(words)
    box.blur()


def fill_form(page: Any, photos: list[Path], noun: str = "teapot", quality: str = "Quick") -> None:
    add_photos(page, photos)
    write(page, "teach-noun", noun)
    page.locator(f"#teach-quality label:has-text('{quality}')").click()


def press(page: Any, elem_id: str) -> None:
    """Press a button once it can be pressed."""
    page.locator(f"#{elem_id}:not([disabled])").click()


def act(page: Any, part: str, do: str) -> None:
    """Press one of our own buttons in a part of the page, by what it wants done."""
    page.locator(f"#{part} button[data-do={do}]").first.click()


def wait_for_state(page: Any, state: str, timeout_s: float = 90) -> None:
    page.locator(f"#job-line[data-state={state}]").wait_for(timeout=1000 * timeout_s)


def step_of(page: Any) -> int:
    return int(page.locator("#job-step").inner_text())


def wait_for_step(page: Any, step: int, timeout_s: float = 90) -> None:
    end = time.monotonic() + timeout_s
    while page.locator("#job-step").count() == 0 or step_of(page) < step:
        assert time.monotonic() < end, f"step {step} did not come"
        time.sleep(0.1)


def wait_for_error(page: Any, words: str) -> None:
    """A toast with these words, and nothing raw."""
    page.get_by_test_id("toast-body").filter(has_text=words).wait_for()
    assert "Traceback" not in page.locator("body").inner_text()
