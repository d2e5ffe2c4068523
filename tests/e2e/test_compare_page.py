"""Compare in a real browser: the cost before, the table while it is drawn, one PNG after."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from served import Server
from tabs import TAUGHT, fits, show, text_of, wait_for_line, wait_until, write

pytestmark = pytest.mark.e2e


def cost(page: Any, words: str) -> None:
    page.locator("#compare-cost").filter(has_text=words).wait_for()


def test_compare(serve: Callable[..., Server], open_page: Callable[..., Any], tmp_path: Any) -> None:
    page = open_page(serve(TAUGHT, 0.01))
    show(page, "Compare")
    wait_until(page, "compare-prompt", "a photo of sks teapot on the beach", 60)
    cost(page, "2 pictures")
    write(page, "compare-steps", "3")
    page.locator("#compare-draw").click()
    assert "2 pictures" in wait_for_line(page, "compare", "done")
    page.locator("#compare-table img").nth(1).wait_for()
    page.locator("#compare-slider img").first.wait_for()  # one over the other, and side by side as well

    page.get_by_role("radio", name="Strengths").check()
    wait_until(page, "compare-values", "0, 0.4, 0.7, 1, 1.2")
    write(page, "compare-rows", "1, 2")
    cost(page, "10 pictures, about")
    write(page, "compare-values", "0, much")
    cost(page, "much")
    page.locator("#compare-draw").click()
    assert "much" in wait_for_line(page, "compare", "failed")
    write(page, "compare-values", ", ".join(str(number / 20) for number in range(20)))
    cost(page, "40 pictures")
    page.locator("#compare-cost[data-ok=no]").wait_for()
    write(page, "compare-values", "0, 0.5, 1")
    cost(page, "6 pictures")
    page.locator("#compare-draw").click()
    wait_for_line(page, "compare", "done")
    table = page.locator("#compare-table")
    assert table.locator("th[scope=col]").all_inner_texts() == ["strength 0", "strength 0.5", "strength 1"]
    assert table.locator("th[scope=row]").all_inner_texts() == ["seed 1", "seed 2"]
    alts = [image.get_attribute("alt") for image in table.locator("img").all()]
    assert len(alts) == 6 and all("sks teapot" in alt and re.search("seed [12]; strength", alt) for alt in alts)
    with page.expect_download() as download:
        page.locator("#compare-save").click()
    download.value.save_as(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.format == "PNG" and grid.width > 3 * 64 and grid.height > 2 * 64

    page.get_by_role("radio", name="Checkpoints").check()
    page.locator("#compare-job").wait_for()
    assert re.fullmatch(r"\d+(, \d+)+", text_of(page, "compare-values"))
    write(page, "compare-steps", "150")  # long enough to be stopped
    page.locator("#compare-draw").click()
    wait_for_line(page, "compare", "waiting")
    page.locator("#compare-stop").click()
    assert "Stopped after" in wait_for_line(page, "compare", "stopped")
    page.set_viewport_size({"width": 390, "height": 844})
    assert fits(page)


def test_on_a_phone_the_grid_comes_into_view(serve: Callable[..., Server], open_page: Callable[..., Any]) -> None:
    page = open_page(serve(TAUGHT, 0.0), width=390, height=844)
    show(page, "Compare")
    wait_until(page, "compare-prompt", "a photo of sks teapot on the beach", 60)
    cost(page, "2 pictures")
    page.locator("#compare-prompt textarea").focus()
    page.keyboard.press("Control+Enter")
    wait_for_line(page, "compare", "done")
    page.locator("#compare-table img").nth(1).wait_for()
    for seen in (page.locator("#compare-state-line"), page.locator("#compare-table td img").first):
        box = seen.bounding_box()
        assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 844
    assert fits(page)


def test_what_a_mode_gives_no_meaning_is_not_asked(serve: Callable[..., Server], open_page: Callable[..., Any]) -> None:
    page = open_page(serve(TAUGHT, 0.0))
    show(page, "Compare")
    wait_until(page, "compare-prompt", "a photo of sks teapot on the beach", 60)
    page.locator("#compare-strength").wait_for()
    page.get_by_role("radio", name="Strengths").check()
    page.locator("#compare-strength").wait_for(state="hidden")
    write(page, "compare-rows", "1, 2")
    page.locator("#compare-seed input:disabled").wait_for()  # the rows have the seeds
    write(page, "compare-rows", "")
    page.locator("#compare-seed input:enabled").wait_for()
    page.get_by_role("radio", name="Seeds").check()
    for hidden in ("seed", "rows"):
        page.locator(f"#compare-{hidden}").wait_for(state="hidden")
    page.locator("#compare-strength").wait_for()
    page.get_by_role("radio", name="Checkpoints").check()
    page.locator("#compare-rows").wait_for()
