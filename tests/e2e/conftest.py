"""Served studios, and a browser that notes everything it asks of anybody else."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Server, chromium_path

HERE = Path(__file__).parent
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts ``python`` with the arguments given and some more environment; ended with the test."""
    started: list[Server] = []

    def start(*arguments: object, environment: dict[str, str] | None = None) -> Server:
        server = Server([sys.executable, *map(str, arguments)], tmp_path / "studio", environment=environment or {})
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.end()


@pytest.fixture
def fake_studio(serve: Callable[..., Server]) -> Callable[..., Server]:
    """Starts a studio whose trainer and workshop are fakes: ``fake_studio(mode, seconds_a_step)``."""
    return lambda mode="ok", pause_s=0.05: serve(HERE / "serve_fake.py", mode, pause_s)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    executable = chromium_path()
    if not Path(executable).exists():
        missing = f"no Chromium at {executable}: apt-get install chromium, or set CHROMIUM"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a studio in a fresh browser profile. At the end: no request to anybody else, no error in a script."""
    contexts: list[Any] = []
    foreign: list[str] = []
    faults: list[str] = []

    def open_it(server: Server, width: int = 1280, height: int = 1000, dark: bool = False) -> Any:
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, color_scheme=scheme
        )
        context.set_default_timeout(60_000)  # tests share their cores; what is right comes sooner
        contexts.append(context)
        page = context.new_page()
        ours = (server.url, "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(ours) else foreign.append(asked.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.url, wait_until="domcontentloaded")
        page.locator("#strip-line").wait_for()  # the first tick: the page is alive
        return page

    yield open_it
    for number, context in enumerate(contexts):
        for page in context.pages:
            page.screenshot(path=tmp_path / f"last-{number}.png", full_page=True)
        context.close()
    assert foreign == [] and faults == []
