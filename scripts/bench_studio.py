"""The studio under load: how fast it starts, how 20 users at once fare, and what a long history costs.

    PYTHONPATH=. python scripts/bench_studio.py                  # ten minutes of users, 200 jobs, 2,000 pictures
    PYTHONPATH=. python scripts/bench_studio.py --seconds 30 --jobs 20 --pictures 100

Everything happens in a fresh home with the real server (``app.py``), trainer and workshop on toybox. Five users upload
photos and create subjects, ten ask how a training is (five over plain HTTP as a page does, five by gradio_client), five
draw.
The long history is made through the service, with a workshop that paints squares; a page is then opened as a browser
does: its HTML, its configuration, all that its tabs show first, and the tick after that.
"""

import argparse
import http.client
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import psutil
from gradio_client import Client, handle_file
from PIL import Image

from dora_diffusion.config import AppConfig
from dora_diffusion.studio.orders import MAX_PICTURES, Order
from dora_diffusion.studio.studio import Studio
from dora_diffusion.studio.ui.launch import serve
from dora_diffusion.studio.workshop import OnEvent, Workshop

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "samples" / "subjects" / "teapot").glob("*.jpg"))[:5]
STARTED_S, STATUS_MS, PAGE_MS = 10, 100, 300  # what is wanted at most
Until = Callable[[float], Iterator[int]]  # 0, 1, 2, ... until the end, at most one each so many seconds
KEPT_S = 4  # a server keeps an idle connection for five seconds
IDLE = (sys.executable, "-c", "import time; time.sleep(1e6)")  # a trainer that keeps its slot and does nothing


@dataclass
class Row:
    """A line of the report; ``wanted`` is empty where there is no limit."""

    what: str
    found: str
    wanted: str = ""


@dataclass
class Tally:
    """What one kind of user met: seconds of each call, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def time(self, call: Callable[[], Any]) -> Any:
        """The answer of ``call``, timed; None where it failed."""
        started = time.perf_counter()
        try:
            answer = call()
        except Exception as error:
            self.note(error)
            return None
        self.seconds.append(time.perf_counter() - started)
        return answer

    def note(self, error: Exception) -> None:
        """Count something that went wrong."""
        self.errors.append(f"{type(error).__name__}: {error}"[:200])

    @property
    def words(self) -> str:
        """ "812 calls, median 4 ms, p95 9 ms, longest 31 ms, 0 errors"."""
        if not self.seconds:
            return f"0 calls, {len(self.errors)} errors"
        ms = sorted(1000 * second for second in self.seconds)
        p95 = ms[min(len(ms) - 1, int(0.95 * len(ms)))]
        times = f"median {statistics.median(ms):.0f} ms, p95 {p95:.0f} ms, longest {ms[-1]:.0f} ms"
        return f"{len(ms)} calls, {times}, {len(self.errors)} errors"


class Browser:
    """One open page, as its requests: a connection that is kept, and a session.

    Raises:
        OSError: nobody answers.
        RuntimeError: an answer is an error.
    """

    def __init__(self, port: int, subject: str = ""):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._subject, self._session, self._asked = subject, os.urandom(6).hex(), 0.0
        self.config: dict[str, Any] = {}

    def get(self, path: str) -> bytes:
        return self._ask("GET", path)

    def load(self) -> None:
        """The page's HTML and configuration."""
        self.get("/")
        self.config = json.loads(self.get("/config"))

    def functions(self, *triggers: str) -> list[dict[str, Any]]:
        """The page's functions that run by themselves at these triggers: "load", "tick"."""
        return [one for one in self.config["dependencies"] if any(target[1] in triggers for target in one["targets"])]

    def run(self, function: Mapping[str, Any]) -> Any:
        """Run a function with what its inputs hold in a page that was just opened."""
        components = {one["id"]: one["props"] for one in self.config["components"]}
        values = [
            self._subject if components[id].get("elem_id") == "subject" else components[id].get("value")
            for id in function["inputs"]
        ]
        asked = {"fn_index": function["id"], "data": values, "session_hash": self._session}
        return json.loads(self._ask("POST", "/gradio_api/run/predict", asked))

    def call(self, name: str, *values: Any) -> Any:
        """A documented endpoint's answer."""
        return json.loads(self._ask("POST", f"/gradio_api/run/{name}", {"data": values}))["data"][0]

    def _ask(self, method: str, path: str, body: Any = None) -> bytes:
        headers = {} if body is None else {"content-type": "application/json"}
        if time.monotonic() - self._asked > KEPT_S:
            self._connection.close()  # the server has, or is about to; the next request opens it again
        self._asked = time.monotonic()
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {content[:200].decode(errors='replace')}")
        return content


def opened(port: int) -> None:
    """Open a page and have its first tick answered.

    Raises:
        OSError, RuntimeError: not yet.
    """
    page = Browser(port)
    page.load()
    for function in page.functions("load"):
        page.run(function)


@contextmanager
def server(home: Path, *command: str) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """A running studio: port, process, and seconds until a page was usable. Ended with all that it started."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {**os.environ, "DORA_HOME": str(home), "PYTHONPATH": str(ROOT)}
    log = home.parent / f"{home.name}.log"
    started = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=output, stderr=output, cwd=ROOT
        )
    try:
        while True:
            try:
                opened(port)
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - started > 300:
                    raise RuntimeError(f"The studio did not start:\n{log.read_text()[-3000:]}") from None
                time.sleep(0.05)
        yield port, process, time.perf_counter() - started
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            child.kill()
        process.terminate()
        process.wait(120)


def app(home: Path) -> Any:
    """The studio as a user starts it."""
    return server(home, sys.executable, "app.py", "--no_browser", "--home", str(home))


# The users. Each does what it does once at least, goes on until the end, and counts. Every kind has a process of its
# own: what one kind's client computes must not be in another kind's times.


def upload(port: int, number: int, until: Until, tally: Tally, job: str) -> None:
    """Send photos, make a subject of them, look at it; every ten seconds."""
    client = _client(port)

    def create() -> Any:
        files = [handle_file(photo) for photo in PHOTOS]
        return client.predict(files=files, class_noun="teapot", name=f"Teapot {number}", api_name="/create_subject")

    for _ in until(10):
        made = tally.time(create)
        if made:
            tally.time(partial(client.predict, subject=made["id"], api_name="/subject"))


def poll(port: int, number: int, until: Until, tally: Tally, job: str) -> None:
    """Ask every second how a training is, by plain HTTP as a page does."""
    page = Browser(port)
    for _ in until(1):
        tally.time(lambda: page.call("job", job))


def poll_by_client(port: int, number: int, until: Until, tally: Tally, job: str) -> None:
    """The same by gradio_client, which goes through Gradio's queue."""
    client = _client(port)
    for _ in until(1):
        tally.time(lambda: client.predict(job=job, api_name="/job"))


def draw(port: int, number: int, until: Until, tally: Tally, job: str) -> None:
    """Draw one picture after the other with toybox, four steps each."""
    client = _client(port)
    what = {"subject": None, "prompt": "a photo of a red teapot", "num_inference_steps": 4, "api_name": "/generate"}
    for turn in until(0):
        tally.time(partial(client.predict, seed=1000 * number + turn, **what))


USERS: dict[str, tuple[Callable[..., None], int]] = {
    "uploads": (upload, 5),
    "status": (poll, 5),
    "status by gradio_client": (poll_by_client, 5),
    "pictures": (draw, 5),
}
COUNT = sum(count for _, count in USERS.values())


def _client(port: int) -> Client:
    # Without TLS there is nothing to verify, and reading the certificates takes longer than a call.
    return Client(f"http://127.0.0.1:{port}", verbose=False, ssl_verify=False)


def users(kind: str, port: int, seconds: float, job: str) -> Tally:
    """All users of a kind, side by side; what they met. They do not act at the same instant."""
    act, count = USERS[kind]
    tally, end = Tally(), time.monotonic() + seconds

    def until(number: int, pause_s: float) -> Iterator[int]:
        time.sleep(pause_s * number / count)
        for turn in itertools.count():
            next_one = time.monotonic() + pause_s
            yield turn
            if time.monotonic() >= end:
                return
            time.sleep(max(0.0, min(next_one, end) - time.monotonic()))

    def user(number: int) -> None:
        try:
            act(port, number, partial(until, number), tally, job)
        except Exception as error:  # it could not even connect
            tally.note(error)

    threads = [threading.Thread(target=user, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def users_at_once(port: int, process: subprocess.Popen[bytes], seconds: float) -> list[Row]:
    """Let all users loose while a training runs; what they met, and what the server's memory did."""
    page = Browser(port)
    subject = page.call("create_sample", "teapot")["id"]
    job = page.call("train", subject, "quick", None)["id"]
    studio = psutil.Process(process.pid)
    memory = [_mib(studio)]
    spent, started = sum(studio.cpu_times()[:2]), time.monotonic()
    with ProcessPoolExecutor(len(USERS), multiprocessing.get_context("spawn")) as pool:
        asked = {kind: pool.submit(users, kind, port, seconds, job) for kind in USERS}
        while wait(asked.values(), 60).not_done:
            memory.append(_mib(studio))
            print(f"  {time.monotonic() - started:.0f} s: server {memory[-1]:.0f} MiB", file=sys.stderr)
    memory.append(_mib(studio))
    tallies = {kind: future.result() for kind, future in asked.items()}
    wanted = {kind: f"median <= {STATUS_MS} ms" for kind in USERS if "status" in kind}
    rows = [
        Row(f"{kind}, of {COUNT} users at once", found.words, wanted.get(kind, "")) for kind, found in tallies.items()
    ]
    errors = [error for tally in tallies.values() for error in tally.errors]
    rows.append(Row("errors", f"{len(errors)}{': ' if errors else ''}{'; '.join(sorted(set(errors))[:3])}", "0"))
    rows.append(Row("processor time of the server", f"{sum(studio.cpu_times()[:2]) - spent:.0f} s"))
    state = page.call("job", job)
    rows.append(Row("the training meanwhile", f"{state['state']}, step {state['step']} of {state['total']}"))
    told = ", ".join(f"{mib:.0f}" for mib in memory)
    rows.append(Row("server's memory: start, each minute, end", f"{told} MiB", "flat"))
    return rows


def _mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


# The long history.


class Painter(Workshop):
    """A workshop without a process: squares instead of pictures, at once."""

    def call(
        self,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        if task != "draw" or arguments is None or on_event is None:
            raise NotImplementedError(task)
        for index, file in enumerate(arguments["files"]):
            square = Image.new("RGB", (128, 128), (file["seed"] % 256, index * 30, 90))
            square.save(file["path"], format="PNG")
            square.save(file["thumb"], format="JPEG")
            on_event({"event": "picture", "index": index, "seconds": 1.0, "width": 128, "height": 128})
        return {}


def fill(home: Path, jobs: int, pictures: int) -> str:
    """Queue jobs, one a subject, and draw pictures; returns a subject that has both."""
    studio = Studio(home, trainer=IDLE, workshop=Painter(home / "app.log"))
    subjects = [studio.subjects.create(PHOTOS[:1], f"Teapot {number}", "teapot") for number in range(jobs)]
    for subject in subjects:
        studio.jobs.enqueue(subject.id, "quick")
    for first in range(0, pictures, MAX_PICTURES):
        count = min(MAX_PICTURES, pictures - first)
        order = Order(prompt=f"a photo of a teapot, {first}", seed=first, num_images=count, num_inference_steps=1)
        assert len(list(studio.pictures.draw(order))) == count
    studio.close()
    return subjects[-1].id


def long_history(folder: Path, jobs: int, pictures: int) -> list[Row]:
    """What a page takes in a studio with a long queue and a long history."""
    home = folder / "long"
    subject = fill(home, jobs, pictures)
    with server(home, sys.executable, str(Path(__file__).absolute()), "--serve", str(home)) as (port, _, seconds):
        times: dict[str, list[float]] = {}
        for _ in range(5):
            _time_page(Browser(port, subject), times)
    where = f"with {jobs} jobs queued and {pictures} pictures"
    rows = [Row(f"start {where}", f"{seconds:.1f} s", f"<= {STARTED_S} s")]
    for name, found in times.items():
        ms = [1000 * second for second in found]
        rows.append(
            Row(
                f"{name} {where}",
                f"median {statistics.median(ms):.0f} ms, longest {max(ms):.0f} ms",
                f"<= {PAGE_MS} ms",
            )
        )
    return rows


def _time_page(page: Browser, times: dict[str, list[float]]) -> None:
    def timed(name: str, call: Callable[[], Any]) -> None:
        started = time.perf_counter()
        call()
        times.setdefault(name, []).append(time.perf_counter() - started)

    timed("HTML and configuration", page.load)
    timed("all tabs' first look", lambda: [page.run(function) for function in page.functions("load")])
    timed("a tick", lambda: [page.run(function) for function in page.functions("tick")])
    timed("jobs of the API", lambda: page.call("jobs", 200, 0, None))
    timed("history of the API", lambda: page.call("history", None, 200, 0))
    timed("subjects of the API", lambda: page.call("list_subjects"))


def serve_idle(home: Path, port: int) -> None:
    """Serve a home whose trainings do nothing."""
    serve(
        Studio(home, trainer=IDLE, workshop=Painter(home / "app.log")),
        AppConfig(port=port, browser=False, home=home),
        None,
        print,
    )


def report(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = ["| what | found | wanted |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.what} | {row.found} | {row.wanted} |" for row in rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of 20 users at once; 0 leaves them out")
    parser.add_argument("--seconds", type=float, help="the same in seconds")
    parser.add_argument("--jobs", type=int, default=200, help="queued jobs of the long history; 0 leaves it out")
    parser.add_argument("--pictures", type=int, default=2000, help="pictures of the long history")
    parser.add_argument("--serve", type=Path, metavar="HOME", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.serve:
        serve_idle(args.serve, args.port)
        return 0
    rows: list[Row] = []
    load_s = 60 * args.minutes if args.seconds is None else args.seconds
    with tempfile.TemporaryDirectory(prefix="bench-studio-") as folder:
        with app(Path(folder) / "home") as (port, process, seconds):
            rows.append(Row("from python app.py to a usable page", f"{seconds:.1f} s", f"<= {STARTED_S} s"))
            if load_s:
                rows += users_at_once(port, process, load_s)
        if args.jobs:
            rows += long_history(Path(folder), args.jobs, args.pictures)
    print(report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
