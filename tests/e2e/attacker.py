"""Somebody who speaks HTTP to a studio without a browser, and says what no page would say."""

import http.client
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from served import Server

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """Status and text of an answer; ``refused`` as well where a status of 200 carries a refusal."""

    status: int
    text: str
    refused: bool


@dataclass
class Attacker:
    """Asks one studio. ``canary``: a folder beside the home that nobody may look into."""

    server: Server
    canary: Path
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = json.loads(self.http("GET", "/config").text)

    @property
    def home(self) -> Path:
        return self.server.home

    def http(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """A request exactly as given: no path is tidied, no header added but Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            given = {"Host": f"127.0.0.1:{self.server.port}", **named}
            if body is not None:
                given["Content-Length"] = str(len(body))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            text = answer.read(2_000_000).decode("utf-8", "replace")
            return Answer(answer.status, text, answer.status >= 400)
        except (http.client.HTTPException, ConnectionError):  # hung up on: what is no HTTP gets no answer
            return Answer(400, "", True)
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.http("GET", path, **headers)

    def file(self, named: object) -> Answer:
        """A file by the route that serves them."""
        return self.get(f"/gradio_api/file={named}")

    def post(self, path: str, content: Any, **headers: str) -> Answer:
        """JSON; also what JSON cannot say strictly (NaN, halves of letters)."""
        return self.http("POST", path, json.dumps(content).encode(), **JSON, **headers)

    def ask(self, name: str, *values: Any) -> Answer:
        """An endpoint for programs."""
        return self.post(f"/gradio_api/run/{name}", {"data": values})

    def press(self, elem_id: str, event: str, *values: Any, said: Any = None, named: str = "") -> Answer:
        """A private handler by its number, as a page calls it: ``said`` is what a button of ours says. Where an event
        has several handlers, ``named`` is the one that is meant.
        """
        session = secrets.token_hex(5)
        number = self.number_of(elem_id, event, named)
        wanted = {"data": values, "fn_index": number, "session_hash": session, "event_data": said}
        joined = self.post("/gradio_api/queue/join", wanted)
        if joined.refused:
            return joined
        return self._listen(session)

    def number_of(self, elem_id: str, event: str, named: str) -> int:
        """The handler of an event; ``elem_id`` "" is the page itself."""
        ids = {part["id"]: part["props"].get("elem_id") or "" for part in self.config["components"]}
        for handler in self.config["dependencies"]:
            if named in ("", handler["api_name"]) and any(
                (ids.get(whose, ""), what) == (elem_id, event) for whose, what in handler["targets"]
            ):
                return int(handler["id"])
        raise KeyError(f"{elem_id}.{event}")

    def upload(self, name: str, content: bytes) -> str:
        """Upload a file. Returns: where the studio has put it.

        Raises:
            PermissionError: it did not take it.
        """
        answer = self.send(name, content)
        if answer.refused:
            raise PermissionError(answer.text)
        return str(json.loads(answer.text)[0])

    def send(self, name: str, content: bytes, query: str = "") -> Answer:
        """The raw upload, with a name that is not tidied."""
        head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode("utf-8", "surrogatepass") + content + b"\r\n--edge--\r\n"
        return self.http("POST", f"/gradio_api/upload{query}", body, Content_Type="multipart/form-data; boundary=edge")

    def teach(self, *files: tuple[str, bytes]) -> Answer:
        """A subject from uploaded files."""
        try:
            paths = [{"path": self.upload(name, content)} for name, content in files]
        except PermissionError as error:
            return Answer(403, str(error), True)
        return self.create(paths)

    def create(
        self, photos: Any, noun: Any = "teapot", name: Any = "", trigger: Any = "", base: Any = "toybox"
    ) -> Answer:
        """A subject, by what is said of it."""
        return self.ask("create_subject", photos, noun, name, trigger, base)

    def _listen(self, session: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
            stream, told = connection.getresponse(), []
            while line := stream.readline():
                if not line.startswith(b"data:"):
                    continue
                message = json.loads(line[5:])
                told.append(line.decode())
                if message["msg"] in ("process_completed", "unexpected_error"):
                    return Answer(200, "".join(told), not message.get("success", False))
            return Answer(200, "".join(told), True)
        finally:
            connection.close()
