"""Requests of other sites' pages are refused; every answer tells the browser what it may do."""

import asyncio
from typing import Any

import pytest

from dora_diffusion.studio.ui.guard import POLICY, Guard, is_foreign

HOST = "127.0.0.1:7860"


def ask(method: str, kind: str = "http", **headers: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"own")]})
        await send({"type": "http.response.body", "body": b"done"})

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": HOST, **headers}.items()]
    asyncio.run(Guard(app)({"type": kind, "method": method, "headers": raw}, None, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),  # no browser
        ({"origin": f"http://{HOST}"}, False),
        ({"origin": f"HTTP://{HOST.upper()}"}, False),
        ({"referer": f"http://{HOST}/?x=1"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://127.0.0.1:9999"}, True),  # another program on this computer
        ({"origin": f"http://{HOST}.evil.example"}, True),
        ({"origin": f"http://evil.example/{HOST}"}, True),
        ({"origin": "http://[broken"}, True),
        ({"referer": "https://evil.example/page"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"origin": "http://evil.example", "referer": f"http://{HOST}/"}, True),
    ],
)
def test_who_is_foreign(headers: dict[str, str], foreign: bool) -> None:
    assert is_foreign({"host": HOST, **headers}) is foreign


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_foreign_page_changes_nothing(method: str) -> None:
    answer = ask(method, origin="http://evil.example")
    assert answer[0]["status"] == 403 and b"another site" in answer[1]["body"]
    assert ask(method, origin=f"http://{HOST}")[0]["status"] == 200


def test_a_foreign_page_may_be_the_way_in() -> None:
    assert ask("GET", referer="http://evil.example")[0]["status"] == 200  # a link that is followed


@pytest.mark.parametrize("origin", [f"http://{HOST}", "http://evil.example"])
def test_every_answer_carries_the_headers_once(origin: str) -> None:
    names = [name for name, _ in ask("POST", origin=origin)[0]["headers"]]
    for name in (b"content-security-policy", b"x-content-type-options", b"x-frame-options", b"referrer-policy"):
        assert names.count(name) == 1, name


def test_the_policy_names_nobody_else() -> None:
    assert "http" not in POLICY and "*" not in POLICY and "frame-ancestors 'none'" in POLICY


def test_what_is_no_request_passes() -> None:
    assert ask("", kind="lifespan")[0]["status"] == 200
