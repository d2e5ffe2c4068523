"""Subjects in a real browser: nothing yet, one in full, another name, another checkpoint, gone and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Server
from tabs import TAUGHT, fits, show, wait_until, write

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
EVIL = '<img src=x onerror="window.hacked=1">'


def test_a_subjects_life(serve: Callable[..., Server], open_page: Callable[..., Any]) -> None:
    server = serve(TAUGHT, 0.0)
    page = open_page(server)
    show(page, "Subjects")
    card = page.locator(".subject-card[data-subject=rex-1][data-state=done]")
    card.wait_for(timeout=60_000)
    assert "taught" in card.inner_text() and "likeness" in card.inner_text() and "kB" in card.inner_text()
    card.get_by_role("button", name="Open").click()
    page.locator("#subject-name[data-subject=rex-1]").wait_for()
    detail = page.locator("#subjects-detail")
    assert detail.locator("svg").count() == 2 and detail.locator("ul.tiles img").count() == 5
    assert detail.locator("#subject-settings").count() == 1

    rows = page.locator("#subject-checkpoints tbody tr")
    assert rows.count() >= 2 and page.locator("tr[data-used=true]").count() == 1
    rows.last.get_by_role("button").click()
    page.locator("#subject-checkpoints tbody tr:last-child[data-used=true]").wait_for()

    page.get_by_role("button", name="Rename or delete").click()
    wait_until(page, "subjects-name", "Rex")
    write(page, "subjects-name", EVIL)
    page.locator("#subjects-name-button").click()
    page.locator("#subject-name").filter(has_text="onerror").wait_for()
    assert page.evaluate("window.hacked") is None

    page.locator("#subjects-detail").get_by_role("button", name="Make a picture").click()
    page.locator("#create-prompt textarea").wait_for()
    wait_until(page, "create-prompt", "a photo of sks teapot on the beach")
    assert page.evaluate("window.hacked") is None

    other = open_page(server)  # has it open while it is deleted elsewhere
    show(other, "Subjects")
    other.locator("#subject-name[data-subject=rex-1]").wait_for()
    show(page, "Subjects")
    write(page, "subjects-typed", "another name")
    page.locator("#subjects-typed-button").click()
    page.get_by_test_id("toast-body").first.wait_for()
    write(page, "subjects-typed", EVIL)
    page.locator("#subjects-typed-button").click()
    page.locator("#subjects-undo .notice").filter(has_text="was deleted").wait_for()
    page.locator("#subjects-empty").wait_for()
    other.locator("#subject-none").filter(has_text="was deleted").wait_for(timeout=15_000)
    page.locator("#subjects-undo").get_by_role("button", name="Bring").click()
    page.locator(".subject-card[data-subject=rex-1]").wait_for()
    page.locator("#subject-name[data-subject=rex-1]").wait_for()
    assert page.evaluate("window.hacked") is None and other.evaluate("window.hacked") is None
    page.set_viewport_size({"width": 390, "height": 844})
    assert fits(page)


def test_the_first_visit(fake_studio: Callable[..., Server], open_page: Callable[..., Any]) -> None:
    page = open_page(fake_studio(), width=390, height=844)
    show(page, "Subjects")
    page.locator("#subjects-empty").wait_for()
    assert fits(page)
    for tab in ("Create", "Compare", "Export"):  # none of them is broken by having nothing
        show(page, tab)
        page.locator(f"#{tab.lower()}-subject").wait_for()
        assert fits(page)
    page.locator("#export-button").click()
    page.locator("#export-state-line[data-state=failed]").filter(has_text="Choose a subject").wait_for()
    show(page, "Subjects")
    page.locator("#subjects-empty").get_by_role("button", name="Try the teapot").click()
    page.locator("#tab-teach, #teach-noun").first.wait_for()
    page.wait_for_function("document.querySelector('#subject textarea, #subject input')?.value === 'teapot-1'")
    page.get_by_role("tab", name="Teach", exact=True, selected=True).wait_for()
    show(page, "Subjects")
    page.locator(".subject-card[data-subject=teapot-1]").wait_for()
