"""Pictures of every page and state of the studio, from a home that is filled with real trainings on toybox.

    python scripts/screenshots.py FOLDER [--docs docs]

Each state is taken four times: 1280 and 390 pixels wide, light and dark; six minutes on two cores. ``--docs``
also writes the three small ones that the documentation shows. Needs playwright and Chromium (CHROMIUM says where).
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

from PIL import Image, ImageFilter
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
SMALL = {"training": "studio-training", "compare": "studio-compare", "export": "studio-export"}
SMALL_WIDTH, SMALL_BYTES = 900, 60_000


class App:
    """``app.py`` over a home of its own."""

    def __init__(self, home: Path):
        self.home = home
        with socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        command = [sys.executable, str(ROOT / "app.py"), "--home", str(home), "--port", port, "--no_browser"]
        self._process = subprocess.Popen(command, start_new_session=True)
        end = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit("The studio did not start.")
            time.sleep(0.2)

    def ask(self, name: str, *values: Any) -> Any:
        """What an endpoint for programs answers."""
        body = json.dumps({"data": values}).encode()
        wanted = urllib.request.Request(f"{self.url}/gradio_api/run/{name}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(wanted, timeout=60) as answer:
            return json.load(answer)["data"][0]

    def wait(self, job: str, ready: Callable[[dict[str, Any]], bool], timeout_s: float = 600) -> dict[str, Any]:
        """The job, once it is as wanted."""
        end = time.monotonic() + timeout_s
        while True:
            found: dict[str, Any] = self.ask("job", job)
            if ready(found):
                return found
            if time.monotonic() > end:
                raise SystemExit(f"{job} stayed as it was: {found}")
            time.sleep(0.3)

    def kill_trainer(self, job: str) -> None:
        """As a failing power supply does."""
        os.kill(int((self.home / "jobs" / job / "alive").read_text()), signal.SIGKILL)

    def end(self) -> None:
        """End the studio and what it trains."""
        for job in self.ask("jobs", 50, 0, None):
            if job["state"] in ("queued", "starting", "running", "saving"):
                self.ask("cancel", job["id"])
        time.sleep(3)
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/config", timeout=5):
                return True
        except OSError:
            return False


class Camera:
    """One page for each look, each in a browser profile of its own."""

    def __init__(self, browser: Browser, app: App, folder: Path):
        self._folder = folder
        self.pages: dict[tuple[int, str], Page] = {}
        for width, scheme in LOOKS:
            size: Any = {"width": width, "height": 900 if width > 640 else 844}
            chosen: Any = scheme
            page = browser.new_page(viewport=size, color_scheme=chosen)
            page.goto(app.url, wait_until="domcontentloaded")
            page.locator("#strip-line").wait_for()
            self.pages[width, scheme] = page

    def each(self, do: Callable[[Page], Any]) -> None:
        """The same on every page."""
        for page in self.pages.values():
            do(page)

    def take(self, name: str, until: str) -> None:
        """The whole page in every look, once ``until`` is there."""
        self.each(lambda page: page.locator(until).first.wait_for(timeout=120_000))
        self.each(lambda page: page.evaluate("window.scrollTo(0, 0)"))  # what sticks would lie over the middle
        time.sleep(1)
        for (width, scheme), page in self.pages.items():
            page.screenshot(path=self._folder / f"{name}-{width}-{scheme}.png", full_page=True)
        print(name, flush=True)


def show(page: Page, tab: str) -> None:
    """Open a tab, also where a narrow page keeps it behind the dots."""
    named = page.get_by_role("tab", name=tab, exact=True)
    page.locator("#tabs button:visible").first.wait_for()  # a page that was just loaded has none yet
    if named.count() and named.first.is_visible():
        named.first.click()
        return
    page.locator("#tabs .overflow-menu > button").click()
    page.locator("#tabs .overflow-dropdown").get_by_text(tab, exact=True).click()


def view(page: Page, subject: str) -> None:
    """Choose a subject by its card, and go to Teach."""
    show(page, "Subjects")
    page.locator(f"#subjects-cards button[data-do=open][data-id={subject}]").first.click()
    page.locator(f"#subjects-detail [data-subject={subject}]").first.wait_for()
    show(page, "Teach")
    page.locator(f"#job-line[data-subject={subject}]").wait_for()


def doubtful_photos(folder: Path) -> list[Path]:
    """Two good photos, one that is too small, one blurred, one twice, and a text."""
    good = sorted((ROOT / "samples" / "subjects" / "mug").glob("*.jpg"))
    small, blurred, twice, text = (folder / name for name in ("small.jpg", "blurred.jpg", "twice.jpg", "notes.jpg"))
    with Image.open(good[2]) as photo:
        photo.resize((60, 60)).save(small)
    with Image.open(good[3]) as photo:
        photo.filter(ImageFilter.GaussianBlur(9)).save(blurred)
    shutil.copy(good[0], twice)
    text.write_text("no picture")
    return [*good[:2], small, blurred, twice, text]


def teach(app: App, sample: str, quality: str, **overrides: Any) -> tuple[str, str]:
    """Put a sample subject into the queue. Returns: subject, job.

    Args:
        overrides: settings, with a double underscore for the dot.
    """
    subject = app.ask("create_sample", sample)["id"]
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    return subject, app.ask("train", subject, quality, changes)["id"]


def take_all(app: App, camera: Camera, folder: Path) -> None:
    """Every state, in the order in which a first user meets them."""
    camera.take("first-run", "#teach-samples button")
    photos = doubtful_photos(folder)
    first = camera.pages[LOOKS[0]]
    first.locator("#teach-photos input[type=file]").set_input_files(photos)
    first.locator("#teach-refused li").first.wait_for(timeout=60_000)
    camera.each(lambda page: page.reload(wait_until="domcontentloaded") if page is not first else None)
    camera.take("photos-checked", "#teach-thumbs .doubtful")

    teapot, teapot_job = teach(app, "teapot", "balanced")
    robot, robot_job = teach(app, "robot", "quick")
    camera.each(lambda page: page.reload(wait_until="domcontentloaded"))
    camera.each(lambda page: view(page, robot))
    camera.take("queued", "#job-line[data-state=queued]")
    camera.each(lambda page: view(page, teapot))
    app.wait(teapot_job, lambda job: job["step"] >= 200 or job["state"] == "done")
    camera.take("training", "#teach-previews img")
    app.wait(teapot_job, lambda job: job["state"] == "done")
    camera.take("done", "#job-line[data-state=done]")

    app.wait(robot_job, lambda job: job["step"] >= 40 or job["state"] == "done")
    app.kill_trainer(robot_job)
    camera.each(lambda page: view(page, robot))
    camera.take("interrupted", "#job-line:is([data-state=interrupted], [data-state=failed])")

    pack, pack_job = teach(app, "backpack", "quick", optim__learning_rate=1000.0, prior__num_class_images=2)
    camera.each(lambda page: view(page, pack))
    app.wait(pack_job, lambda job: job["state"] in ("failed", "done"))
    camera.take("failed", "#job-line[data-state=failed]")

    camera.each(lambda page: view(page, teapot))
    camera.each(lambda page: show(page, "Create"))
    first.locator("#create-generate").click()
    first.locator("#create-state-line[data-state=done]").wait_for(timeout=180_000)
    camera.each(lambda page: page.locator("#history-grid .tile").first.click())
    camera.take("pictures", "#history-detail .large img")

    camera.each(lambda page: show(page, "Compare"))
    camera.each(lambda page: page.get_by_role("radio", name="Strengths").check())
    for page in camera.pages.values():
        page.locator("#compare-rows input, #compare-rows textarea").first.fill("1, 2")
        page.wait_for_timeout(1000)
        page.locator("#compare-draw").click()
        page.locator("#compare-state-line[data-state=done]").wait_for(timeout=300_000)
    camera.take("compare", "#compare-table img")

    camera.each(lambda page: show(page, "Subjects"))
    camera.take("subjects", "#subjects-cards img")
    camera.each(lambda page: show(page, "Export"))
    for page in camera.pages.values():
        page.locator("#export-button").click()
        page.locator("#export-state-line[data-state=done]").wait_for(timeout=300_000)
    camera.take("export", "#export-result")


def shrink(source: Path, target: Path) -> None:
    """A JPEG for the documentation: the top of the page, at most 60 kB."""
    with Image.open(source) as shot:
        top = shot.convert("RGB").crop((0, 0, shot.width, min(shot.height, shot.width)))
        small = top.resize((SMALL_WIDTH, round(top.height * SMALL_WIDTH / top.width)), Image.Resampling.LANCZOS)
    for quality in range(85, 20, -5):
        small.save(target, "JPEG", quality=quality, optimize=True)
        if target.stat().st_size <= SMALL_BYTES:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, help="where the small ones go")
    wanted = parser.parse_args()
    wanted.folder.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        app = App(Path(place) / "home")
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            take_all(app, Camera(browser, app, wanted.folder), Path(place))
        finally:
            browser.close()
            app.end()
    for name, small in SMALL.items():
        if wanted.docs is not None:
            shrink(wanted.folder / f"{name}-1280-light.png", wanted.docs / f"{small}.jpg")


if __name__ == "__main__":
    main()
