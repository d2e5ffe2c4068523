"""A studio that is watched from inside (``watch/sitecustomize.py``) and from outside (a proxy that notes who asks)."""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket

HOOK = Path(__file__).parent / "watch"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@dataclass
class Watch:
    """What the processes of a studio did that they should not.

    Args:
        log: the file that they write it into.
        secrets: folders that nobody shall look into.
        homes: the folders in which they may write; none: it is not looked at.
    """

    log: Path
    secrets: tuple[Path, ...] = ()
    homes: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """What makes a process, and all that it starts, be watched."""
        paths = [str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "WATCH_LOG": str(self.log),
            "WATCH_SECRETS": ":".join(map(str, self.secrets)),
            "WATCH_HOMES": ":".join(map(str, self.homes)),
        }

    def processes(self) -> list[str]:
        """The command lines of those that were watched."""
        return [line.split("\t")[1] for line in self._lines() if line.startswith("process\t")]

    def faults(self) -> list[str]:
        """What was done that nobody may do."""
        return [line for line in self._lines() if not line.startswith("process\t")]

    def _lines(self) -> list[str]:
        return self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []


@dataclass
class Proxy:
    """A proxy that passes nothing on, and notes the first line of each request."""

    asked: list[str] = field(default_factory=list)
    listener: socket = field(default_factory=lambda: create_server(("127.0.0.1", 0)))

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def environment(self) -> dict[str, str]:
        """What makes programs ask this proxy; only a server on this computer is asked directly."""
        return {
            **dict.fromkeys(PROXIES, self.url),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def close(self) -> None:
        self.listener.close()

    def _listen(self) -> None:
        while True:
            try:
                asking, _ = self.listener.accept()
            except OSError:
                return
            with asking:
                asking.settimeout(5)
                try:
                    said = asking.recv(4096).decode("latin-1")
                    asking.sendall(b"HTTP/1.1 502 Nobody\r\ncontent-length: 6\r\nconnection: close\r\n\r\nnobody")
                    asking.shutdown(SHUT_RDWR)
                except OSError:
                    said = "nothing"
            self.asked.append(said.split("\r\n")[0])
