"""The whole path in a real browser, with the real trainer on toybox: photos, a noun, Train; pictures; a file."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open
from served import Server
from tabs import choose, show, text_of, wait_for_line, wait_until, write
from teaching import act, add_photos, fill_form, press, step_of, wait_for_state, wait_for_step
from teaching import write as write_and_leave
from watched import Proxy, Watch

pytest.importorskip("gradio")
pytestmark = pytest.mark.e2e

Serve = Callable[..., Server]
OpenPage = Callable[..., Any]
FOUR_MINUTES_S = 240
STEPS = 24  # of the short training


@pytest.fixture
def photos(subject_photos: Path) -> list[Path]:
    return sorted(subject_photos.glob("*.jpg"))


def test_photos_to_a_file_in_one_session(
    serve: Serve, open_page: OpenPage, photos: list[Path], repository: Path, tmp_path: Path
) -> None:
    page = open_page(serve(repository / "app.py", "--no_browser"))
    fill_form(page, photos)
    take_few_steps(page, STEPS)
    press(page, "teach-train")
    page.locator("#teach-choice button[data-do=try]").wait_for(timeout=180_000)
    before = step_of(page)
    page.reload(wait_until="domcontentloaded")  # the training does not notice
    wait_for_step(page, before)
    act(page, "teach-choice", "try")  # the newest checkpoint, tried while it trains
    page.get_by_role("tab", name="Create", selected=True).wait_for()
    wait_until(page, "create-prompt", "a photo of sks teapot on the beach")
    assert "newest checkpoint" in text_of(page, "create-subject") or "step" in text_of(page, "create-subject")
    tried = draw(page, count=1, steps=4)
    page.locator("#strip-line[data-state=none]").wait_for(timeout=240_000)

    show(page, "Teach")
    wait_for_state(page, "done")
    assert step_of(page) == STEPS
    act(page, "job", "create")
    page.wait_for_function("document.querySelector('#create-subject input').value === 'teapot 1 (sks teapot)'")
    taught = draw(page, count=1, steps=4, seed="7")
    assert taught != tried
    page.locator("#history-count[data-count='2']").wait_for()
    kept = download_newest(page, tmp_path / "kept.png")
    assert json.loads(kept.info["dora_diffusion"])["seed"] == 7

    restore_from(page, tmp_path / "kept.png")
    page.locator("#create-generate").click()
    page.locator("#history-count[data-count='3']").wait_for(timeout=120_000)
    wait_for_line(page, "create", "done")
    assert download_newest(page, tmp_path / "again.png").tobytes() == kept.tobytes(), (
        "the same settings, the same pixels"
    )

    compare(page, tmp_path)
    export(page, "diffusers", tmp_path)

    other = open_page(Server([], Path(), port=int(page.url.rpartition(":")[2].strip("/"))))
    wait_for_state(other, "done")  # another browser sees the same
    assert step_of(other) == STEPS
    show(other, "Create")
    other.locator("#history-count[data-count='3']").wait_for()
    show(other, "Export")
    other.locator("#export-earlier tbody tr", has_text="teapot 1").wait_for()


@pytest.mark.slow
def test_three_decisions_and_four_minutes(
    serve: Serve, open_page: OpenPage, photos: list[Path], repository: Path, tmp_path: Path
) -> None:
    proxy, watch = Proxy(), Watch(tmp_path / "watch.log")
    server = serve(repository / "app.py", "--no_browser", environment={**proxy.environment(), **watch.environment()})
    page = open_page(server)
    began = time.monotonic()
    add_photos(page, photos)  # one
    write_and_leave(page, "teach-noun", "teapot")  # two
    press(page, "teach-train")  # three: as good as is usual
    assert page.get_by_label("Balanced").is_checked()
    wait_for_step(page, 40, 240)
    page.reload(wait_until="domcontentloaded")
    wait_for_state(page, "done", 600)
    trained_s = time.monotonic() - began
    act(page, "job", "create")
    wait_until(page, "create-prompt", "a photo of sks teapot on the beach")
    page.locator("#create-generate").click()
    page.locator("#create-gallery img").first.wait_for(timeout=120_000)
    whole_s = time.monotonic() - began
    print(f"trained after {trained_s:.0f} s, a picture after {whole_s:.0f} s")
    assert json.loads((server.home / "jobs/job-1/run/status.json").read_text())["step"] == 300
    wait_for_line(page, "create", "done", 120)
    show(page, "Teach")
    likeness = page.locator("#job-numbers").inner_text()
    assert "likeness" in likeness
    compare(page, tmp_path)
    export(page, "diffusers", tmp_path)
    assert proxy.asked == [] and watch.faults() == []
    assert whole_s <= FOUR_MINUTES_S, f"{whole_s:.0f} s from photos to a picture"


def test_by_keyboard_alone(fake_studio: Callable[..., Server], open_page: OpenPage, photos: list[Path]) -> None:
    page = open_page(fake_studio(pause_s=0.02))
    tab_to(page, "#teach-photos button, #teach-photos input[type=file]")
    page.locator("#teach-photos input[type=file]").set_input_files(photos)  # what the system's own window would give
    page.locator("#teach-thumbs img").nth(4).wait_for()
    tab_to(page, "#teach-noun input")
    page.keyboard.type("teapot")
    tab_to(page, "#teach-quality input[value=quick]")  # Gradio's radio buttons are stops of their own, without arrows
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('#teach-quality input:checked').value === 'quick'")
    tab_to(page, "#teach-train")
    page.keyboard.press("Enter")
    wait_for_state(page, "done", 60)
    tab_to(page, "#job button[data-do=create]")
    page.keyboard.press("Enter")
    wait_until(page, "create-prompt", "a photo of sks teapot on the beach")
    tab_to(page, "#create-scene-snow")
    page.keyboard.press("Space")
    wait_until(page, "create-prompt", "a photo of sks teapot in the snow")
    tab_to(page, "#create-generate")
    page.keyboard.press("Space")
    wait_for_line(page, "create", "done")
    tab_to(page, "#history-grid .tile")
    page.keyboard.press("Enter")
    page.locator("#history-detail .large img").wait_for()
    with page.expect_download():
        tab_to(page, "#history-download")
        page.keyboard.press("Enter")

    go_by_keyboard(page, "Compare")
    tab_to(page, "#compare-mode input[value=strengths]")
    page.keyboard.press("Space")
    wait_until(page, "compare-values", "0, 0.4, 0.7, 1, 1.2")
    tab_to(page, "#compare-draw")
    page.keyboard.press("Enter")
    assert "5 pictures" in wait_for_line(page, "compare", "done")
    tab_to(page, "#compare-save")
    with page.expect_download():
        page.keyboard.press("Enter")

    go_by_keyboard(page, "Subjects")
    tab_to(page, "#subjects-cards button[data-do=open]")
    page.keyboard.press("Enter")
    page.locator("#subject-name").wait_for()

    go_by_keyboard(page, "Export")
    tab_to(page, "#export-format input[value=diffusers]")
    page.keyboard.press("Space")
    tab_to(page, "#export-button")
    page.keyboard.press("Enter")
    wait_for_line(page, "export", "done")
    tab_to(page, "#export-result a[download]")
    with page.expect_download():
        page.keyboard.press("Enter")


def tab_to(page: Any, selector: str, at_most: int = 250) -> None:
    """Press Tab until something that the selector names has the focus; all that can be pressed can be reached so."""
    page.locator(selector).first.wait_for(state="attached")
    for _ in range(at_most):
        page.keyboard.press("Tab")
        if page.locator(selector).evaluate_all("found => found.includes(document.activeElement)"):
            assert page.evaluate(HAS_RING), f"{selector}: nobody sees that it has the focus"
            return
    raise AssertionError(f"{at_most} times Tab do not lead to {selector}")


# A ring around what has the focus, or around what stands for it (a hidden radio's label).
HAS_RING = """() => {
  for (let shown = document.activeElement, up = 0; shown && up < 3; shown = shown.parentElement, up++) {
    const style = getComputedStyle(shown);
    if (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) return true;
    if (style.boxShadow !== 'none') return true;
  }
  return false;
}"""


def go_by_keyboard(page: Any, tab: str) -> None:
    tab_to(page, f"#tabs button[role=tab]:has-text('{tab}')")
    page.keyboard.press("Enter")
    page.get_by_role("tab", name=tab, selected=True).wait_for()


def take_few_steps(page: Any, steps: int) -> None:
    """A short training, set as a user does who knows how."""
    page.locator("#teach-advanced > button").click()
    for group, setting, value in (("run", "run-max-train-steps", steps), ("prior", "prior-num-class-images", 4)):
        page.locator(f"#group-{group} > button").click()
        page.locator(f"#set-{setting} input").fill(str(value))
        page.locator(f"#set-{setting} input").blur()
    page.locator("#teach-changed [data-changed='2']").wait_for()


def draw(page: Any, count: int, steps: int, seed: str = "3") -> bytes:
    """Generate; returns the pixels of what is the newest in the gallery."""
    if not page.locator("#create-steps input[type=number]").is_visible():
        page.get_by_role("button", name="More settings").click()
    number = page.locator("#create-steps input[type=number]")
    number.fill(str(steps))
    number.press("Enter")
    write(page, "create-seed", seed)
    counter = page.locator("#create-count input[type=number]")
    counter.fill(str(count))
    counter.press("Enter")
    page.locator("#create-generate").click()
    page.locator("#create-state-line:not([data-state=done])").wait_for()
    assert f"seed {seed}" in wait_for_line(page, "create", "done", 120)
    image = page.locator(f"#create-gallery img[alt$='seed {seed}']").first
    image.wait_for()
    with urllib.request.urlopen(image.evaluate("image => image.src")) as answer:
        return bytes(answer.read())


def download_newest(page: Any, file: Path) -> Image.Image:
    """Choose the newest picture of the history, and save it as a user does."""
    newest = page.locator("#history-grid .tile").first
    number = newest.get_attribute("data-id")
    newest.click()
    page.locator("#history-detail h3", has_text=f"Picture {number}").wait_for()
    with page.expect_download() as download:
        page.locator("#history-download").click()
    download.value.save_as(file)
    with Image.open(file) as image:
        image.load()
        return image


def restore_from(page: Any, file: Path) -> None:
    """Another subject, other words; then a made picture is dropped in, and all is as it was."""
    choose(page, "create-subject", " alone")
    write(page, "create-prompt", "something else")
    write(page, "create-seed", "1")
    page.get_by_role("button", name="Settings from a picture").click()
    page.locator("#create-file input[type=file]").set_input_files(file)
    wait_until(page, "create-prompt", "a photo of sks teapot on the beach")
    wait_until(page, "create-seed", "7")
    assert text_of(page, "create-subject") == "teapot 1 (sks teapot)"


def compare(page: Any, folder: Path) -> None:
    """The base against the subject, and the grid as one picture."""
    show(page, "Compare")
    wait_until(page, "compare-prompt", "a photo of sks teapot on the beach")
    write(page, "compare-steps", "4")
    page.locator("#compare-cost[data-ok=yes]", has_text="2 pictures").wait_for()
    page.locator("#compare-draw").click()
    wait_for_line(page, "compare", "done", 120)
    sources = [image.evaluate("image => image.src") for image in page.locator("#compare-table img").all()]
    assert len(set(sources)) == 2
    with page.expect_download() as download:
        page.locator("#compare-save").click()
    download.value.save_as(folder / "grid.png")
    with Image.open(folder / "grid.png") as grid:
        assert grid.format == "PNG" and grid.width > grid.height


def export(page: Any, format_name: str, folder: Path) -> None:
    """A proved file, downloaded, is an adapter that opens."""
    show(page, "Export")
    page.wait_for_function("document.querySelector('#export-subject input')?.value.startsWith('teapot 1')")
    page.locator(f"#export-format input[value={format_name}]").check()
    page.locator("#export-button").click()
    assert "is proved" in wait_for_line(page, "export", "done", 180)
    result = page.locator("#export-result[data-proved=true]")
    result.wait_for()
    with page.expect_download() as download:
        result.get_by_role("link", name="Download").click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    with safe_open(file, "pt") as weights:
        assert any("lora" in name for name in weights.keys())  # noqa: SIM118 - no mapping
