"""The model hub without a network: what ``huggingface_hub.HfApi`` is replaced with."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any


class FakeHub:
    """Keeps what is uploaded, and fails where it is told to."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.uploaded: dict[str, bytes] = {}
        self.role = "write"
        self.fails: dict[str, Exception] = {}

    def _called(self, name: str) -> None:
        self.said.append(name)
        if name in self.fails:
            raise self.fails[name]

    def whoami(self) -> dict[str, Any]:
        self._called("whoami")
        return {"name": "me", "auth": {"accessToken": {"role": self.role}}}

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> None:
        assert exist_ok
        self._called("create_repo")
        self.repository = repo_id

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> None:
        self._called("upload_folder")
        assert repo_id == self.repository and commit_message
        files = [path for path in folder_path.rglob("*") if path.is_file()]
        for path in files:
            name = path.relative_to(folder_path).as_posix()
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                self.uploaded[name] = path.read_bytes()
