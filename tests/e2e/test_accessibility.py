"""Every page by the rules of axe, light and dark, on a desk and on a phone; no page must be pushed to the side."""

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageFilter
from served import Server
from tabs import TAUGHT, fits, show, wait_for_line, wait_until, write
from teaching import act, press, wait_for_state

axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.e2e

SIZES = ((1280, 1000), (390, 844))
GRAVE = ("serious", "critical")
# Inside Gradio's own components, where no setting and no style of ours reaches: (rule, part of the element), why.
GRADIOS_OWN: dict[tuple[str, str], str] = {}


def grave(page: Any) -> list[str]:
    """What axe finds serious or critical, an element a line, without what is Gradio's own."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(400)  # colours fade in
    found = axe_playwright.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    lines = [
        (rule["id"], f"{rule['id']} ({rule['impact']}): {' '.join(map(str, node['target']))} {node['html'][:160]}")
        for rule in found
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]
    return [line for id, line in lines if not any(id == rule and part in line for rule, part in GRADIOS_OWN)]


def look(page: Any, name: str, faults: list[str]) -> None:
    """Both sizes of what is shown now."""
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        faults += [f"{name}, {width} px: {fault}" for fault in grave(page)]
        if not fits(page):
            faults.append(f"{name}: is wider than {width} px")
    page.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page(dark: bool, serve: Callable[..., Server], open_page: Callable[..., Any]) -> None:
    page = open_page(serve(TAUGHT, 0.0), dark=dark)
    faults: list[str] = []
    wait_for_state(page, "done", 60)
    page.locator("#teach-previews img").first.wait_for()
    page.locator("#teach-advanced > button").click()
    page.locator("#group-optim > button").click()
    page.locator("#teach-log > button").click()
    look(page, "Teach", faults)

    act(page, "job", "create")
    wait_until(page, "create-prompt", "a photo of sks teapot on the beach")
    write(page, "create-prompt", "a photo of skz teapot")
    page.locator("#create-help .prompt-hint").wait_for()
    page.locator("#create-generate").click()
    wait_for_line(page, "create", "done")
    page.locator("#history-grid .tile").first.click()
    page.locator("#history-detail .large img").wait_for()
    page.get_by_role("button", name="More settings").click()
    page.get_by_role("button", name="Settings from a picture").click()
    look(page, "Create", faults)

    show(page, "Compare")
    wait_until(page, "compare-prompt", "a photo of sks teapot on the beach")
    page.get_by_role("radio", name="Checkpoints").check()
    page.locator("#compare-job").wait_for()
    page.get_by_role("radio", name="Base against subject").check()
    page.locator("#compare-cost", has_text="2 pictures").wait_for()
    page.locator("#compare-draw").click()
    wait_for_line(page, "compare", "done")
    page.locator("#compare-slider img").first.wait_for()
    look(page, "Compare", faults)

    show(page, "Subjects")
    page.locator("#subject-name").wait_for()
    page.locator("#subjects-change > button").click()
    look(page, "Subjects", faults)

    show(page, "Export")
    page.wait_for_function("document.querySelector('#export-subject input')?.value.startsWith('Rex')")
    page.locator("#export-button").click()
    page.locator("#export-result[data-proved=true]").wait_for()
    look(page, "Export", faults)
    assert faults == [], "\n".join(faults)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_first_run_doubtful_photos_and_a_failure(
    dark: bool, fake_studio: Callable[..., Server], open_page: Callable[..., Any], subject_photos: Any, tmp_path: Any
) -> None:
    page = open_page(fake_studio("oom", 0.02), dark=dark)
    faults: list[str] = []
    page.locator("#teach-samples button").first.wait_for()
    look(page, "first run", faults)
    show(page, "Subjects")
    page.locator("#subjects-cards").wait_for()
    look(page, "no subjects", faults)
    show(page, "Teach")
    photos = sorted(subject_photos.glob("*.jpg"))[:3]
    with Image.open(photos[2]) as photo:
        photo.filter(ImageFilter.GaussianBlur(9)).save(tmp_path / "blurred.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    given = [*photos[:2], tmp_path / "blurred.jpg", tmp_path / "text.jpg"]
    page.locator("#teach-photos input[type=file]").set_input_files(given)
    page.locator("#teach-refused li").wait_for()
    page.locator("#teach-thumbs .findings li").wait_for()
    press(page, "teach-train")
    page.locator("#teach-fault [role=alert]").wait_for()
    look(page, "doubtful photos", faults)
    page.locator("#teach-noun input").fill("teapot")
    press(page, "teach-train")
    page.locator("#job .failure").wait_for()
    look(page, "a failure", faults)
    assert faults == [], "\n".join(faults)
