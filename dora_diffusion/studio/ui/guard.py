"""What stands before every request: who may ask, and what the browser is told it may do with the answer."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Gradio evaluates its own templates and writes styles into the page, so those two stay; every other address is out.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
)


class Guard:
    """ASGI middleware: a page of somebody else cannot press our buttons, and our page can ask nobody else.

    A browser says with every request that changes something where it comes from (Origin, else Referer); a program that
    is no browser says nothing, and is no danger here. A foreign origin is refused with status 403.
    """

    def __init__(self, app: App):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                ours = [(name.encode(), value.encode()) for name, value in HEADERS if name.encode() not in given]
                message["headers"] = [*message.get("headers", ()), *ours]
            await send(message)

        if scope["method"] not in SAFE_METHODS and is_foreign(headers):
            await _refuse(send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def is_foreign(headers: MutableMapping[str, str]) -> bool:
    """Whether a browser says that the request comes from another site's page; names of headers in lower case."""
    said = headers.get("origin") or headers.get("referer")
    if said is not None:
        try:
            return urlsplit(said).netloc.lower() != headers.get("host", "").lower()  # "null" has none, and is foreign
        except ValueError:
            return True
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


async def _refuse(send: Send) -> None:
    text = b"This page belongs to another site. Open the studio's own page."
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": text})
