"""A studio in a process of its own."""

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

from dora_diffusion.studio import process


@dataclass
class Server:
    """A studio that is served: ``command`` is completed with --port. ``environment``: what it gets beside ours."""

    command: list[str]
    home: Path
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home.parent / "server.log"

    def start(self) -> None:
        """Start, and return when the page answers."""
        self.port = self.port or free_port()
        environment = {**os.environ, "DORA_HOME": str(self.home), "OMP_NUM_THREADS": "1", **self.environment}
        command = [*self.command, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 60
        while status_of(f"{self.url}/config") != 200:
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server as a power failure would; what it started goes on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        """End the server and the trainings it started."""
        self.kill()
        for trainer in self.trainers():
            process.send(trainer, signal.SIGKILL, group=True)

    def trainers(self) -> list[int]:
        """The processes that train now."""
        held = [file for file in (self.home / "jobs").glob("*/alive") if process.is_held(file)]
        return [pid for pid in map(process.pid_in, held) if pid is not None]


def chromium_path() -> str:
    """Where the browser is, or should be."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status_of(url: str, body: bytes | None = None, **headers: str) -> int:
    """The HTTP status of a GET, or of a POST of JSON; 0 when nobody answers."""
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0
