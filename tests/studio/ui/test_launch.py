"""The page is for this computer, and what a user does wrong is told in plain words."""

import subprocess
import sys
from pathlib import Path
from socket import socket

import pytest

from dora_diffusion.cli.app import run
from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio.ui.launch import check_host, launch, read_login, trusted_hosts


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "studio.example", ""])
def test_other_hosts_need_a_login(host: str) -> None:
    with pytest.raises(StudioError, match="DORA_STUDIO_LOGIN"):
        check_host(host, None)
    check_host(host, ("ada", "secret"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_computer_needs_none(host: str) -> None:
    check_host(host, None)


def test_a_host_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DORA_STUDIO_LOGIN", raising=False)
    with pytest.raises(StudioError):
        launch("0.0.0.0", 7860, print)
    assert not (tmp_path / "home").exists()


def test_login() -> None:
    assert read_login(None) is None and read_login("") is None
    assert read_login("ada:se:cret") == ("ada", "se:cret")


@pytest.mark.parametrize("text", ["ada", "ada:", ":secret", ":"])
def test_half_a_login_is_none(text: str) -> None:
    with pytest.raises(StudioError, match="user:password"):
        read_login(text)


def test_the_names_a_browser_may_use() -> None:
    assert trusted_hosts("127.0.0.1") == ["127.0.0.1", "localhost"]
    assert trusted_hosts("192.168.1.5") == ["127.0.0.1", "192.168.1.5", "localhost"]
    assert trusted_hosts("0.0.0.0") == ["*"]


def test_without_gradio_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MachineError, match=r"pip install 'dora-diffusion\[ui\]'"):
        launch("127.0.0.1", 7860, print)


def test_a_taken_port_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_HOME", str(tmp_path / "home"))
    with socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StudioError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            launch("127.0.0.1", port, print)


def test_help_needs_neither_gradio_nor_torch() -> None:
    code = (
        "import sys; from dora_diffusion.cli.app import run\n"
        "try: run(['--help'])\nexcept SystemExit as end: print(end.code, {'gradio', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--host" in done.stdout and done.stdout.endswith("0 set()\n")


def test_the_command_passes_host_and_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    served: list[tuple[str, int]] = []

    def serve(host: str, port: int, on_ready: object) -> None:
        served.append((host, port))

    monkeypatch.setattr("dora_diffusion.cli.app.launch", serve)
    assert run(["--host", "localhost", "--port", "7999"]) == 0
    assert served == [("localhost", 7999)]
