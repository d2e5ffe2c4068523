"""A model hub on this machine: a folder's files, by the addresses that ``huggingface_hub`` asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class HubServer(ThreadingHTTPServer):
    """One repository, read only.

    Attributes:
        endpoint: for HF_ENDPOINT.
        asked: "METHOD path" of every request so far.
        sent: the files whose content was asked for.
        breaks: files whose connection ends in the middle, once each.
    """

    daemon_threads = True

    def __init__(self, name: str, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.folder = name, folder
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.sent: list[str] = []
        self.breaks: set[str] = set()

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Told in ``asked``."""

    def _answer(self, with_content: bool) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {path}")
        if path.startswith(f"/api/models/{hub.name}/tree/"):
            return self._json([self._entry(file) for file in hub.files()], with_content)
        if path in (f"/api/models/{hub.name}", f"/api/models/{hub.name}/revision/main"):
            siblings = [{"rfilename": file} for file in hub.files()]
            return self._json({"id": hub.name, "sha": COMMIT, "siblings": siblings}, with_content)
        for revision in ("main", COMMIT):
            before = f"/{hub.name}/resolve/{revision}/"
            if path.startswith(before) and path.removeprefix(before) in hub.files():
                return self._file(path.removeprefix(before), with_content)
        known = path.startswith((f"/{hub.name}/", f"/api/models/{hub.name}/"))
        code = "EntryNotFound" if known else "RepoNotFound"
        return self._say(404, b"", {"X-Error-Code": code}, with_content)

    def _entry(self, file: str) -> dict[str, Any]:
        content = (self.server.folder / file).read_bytes()
        return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _file(self, file: str, with_content: bool) -> None:
        content = (self.server.folder / file).read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and asked.endswith("-") and int(asked[6:-1]) > 0:
            start = int(asked[6:-1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._say(206, content[start:], headers, with_content)
        if with_content:
            self.server.sent.append(file)
        if with_content and file in self.server.breaks:
            self.server.breaks.discard(file)
            return self._hang_up(content, headers)
        return self._say(200, content, headers, with_content)

    def _json(self, what: Any, with_content: bool) -> None:
        self._say(200, json.dumps(what).encode(), {"Content-Type": "application/json"}, with_content)

    def _say(self, status: int, content: bytes, headers: dict[str, str], with_content: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def _hang_up(self, content: bytes, headers: dict[str, str]) -> None:
        """Half of what was promised."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.close_connection = True


@contextmanager
def hub_of(name: str, folder: Path) -> Iterator[HubServer]:
    """A hub that has ``folder`` as the repository ``name``."""
    server = HubServer(name, folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
