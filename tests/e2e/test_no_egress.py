"""Nothing leaves the computer: neither from the server and what it starts, nor from the page.

Everybody is told to use a proxy that only notes who asks. What ignores proxies is noted by a hook in each Python
process (``watch/sitecustomize.py``). The slow test of the whole path is watched in the same way.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Server
from tabs import choose, show, wait_for_line, write
from teaching import act, press, wait_for_state
from watched import Proxy, Watch

pytest.importorskip("gradio")
pytestmark = pytest.mark.e2e

# Chromium asks its maker about forms, whatever page it shows; that is the browser's, and no request of the studio.
CHROMIUMS_OWN = "CONNECT content-autofill.googleapis.com:443"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    listening = Proxy()
    yield listening
    listening.close()


@pytest.fixture
def page(browser: Any, proxy: Proxy) -> Iterator[Any]:
    """A page of a browser that asks the proxy for whatever is not on this computer."""
    through: Any = {"server": proxy.url, "bypass": "127.0.0.1"}
    context = browser.new_context(proxy=through)
    yield context.new_page()
    context.close()


def test_the_proxy_notes_who_asks(proxy: Proxy, page: Any) -> None:
    page.goto("http://studio.example/x")
    assert any("http://studio.example/x" in line for line in proxy.asked)


def test_not_one_request_leaves(
    serve: Callable[..., Server], proxy: Proxy, page: Any, repository: Path, tmp_path: Path
) -> None:
    watch = Watch(tmp_path / "watch.log")
    fake = [repository / "tests" / "e2e" / "serve_half.py", 0.01]
    server = serve(*fake, environment={**proxy.environment(), **watch.environment()})
    page.goto(server.url, wait_until="domcontentloaded")
    page.locator("#strip-line").wait_for()
    page.locator("#teach-samples button", has_text="Teapot").click()
    page.locator("#teach-thumbs img").first.wait_for()
    press(page, "teach-train")
    wait_for_state(page, "done", 60)
    act(page, "job", "create")
    page.locator("#create-prompt textarea").wait_for()
    choose(page, "create-subject", " alone")  # drawn by the real workshop
    write(page, "create-prompt", "a photo of a red teapot")
    page.locator("#create-count input[type=number]").fill("1")
    page.locator("#create-generate").click()
    wait_for_line(page, "create", "done", 180)
    for tab in ("Compare", "Subjects", "Export"):
        show(page, tab)
        page.wait_for_timeout(500)
    page.goto(f"{server.url}/?view=api", wait_until="domcontentloaded")
    page.wait_for_timeout(1500)
    ran = " ".join(watch.processes())
    assert all(name in ran for name in ("serve_half.py", "fake_trainer.py", "workshop_process"))
    assert [line for line in proxy.asked if not line.startswith(CHROMIUMS_OWN)] == []
    assert watch.faults() == []
