"""The page is for this computer, and what a user does wrong is told in plain words."""

import signal
import subprocess
import sys
from pathlib import Path
from socket import socket

import pytest

from dora_diffusion.cli.app import run
from dora_diffusion.config import AppConfig
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
        launch(AppConfig(host="0.0.0.0"), print)
    with pytest.raises(StudioError, match="--share would open"):
        launch(AppConfig(share=True), print)
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
    assert trusted_hosts("127.0.0.1", share=True) == ["*.gradio.live", "127.0.0.1", "localhost"]


def test_without_gradio_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MachineError, match=r"pip install 'dora-diffusion\[ui\]'"):
        launch(AppConfig(), print)


def test_a_taken_port_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_HOME", str(tmp_path / "home"))
    with socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StudioError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            launch(AppConfig(port=port), print)


def test_help_needs_neither_gradio_nor_torch() -> None:
    code = (
        "import sys; from dora_diffusion.cli.app import run\n"
        "try: run(['--help'])\nexcept SystemExit as end: print(end.code, {'gradio', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--host" in done.stdout and done.stdout.endswith("0 set()\n")


def test_the_command_passes_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[AppConfig] = []
    monkeypatch.setattr("dora_diffusion.studio.ui.launch.launch", lambda config, on_ready: served.append(config))
    assert run(["--host", "localhost", "--port", "7999", "--home", str(tmp_path), "--no_browser"]) == 0
    assert served == [AppConfig(host="localhost", port=7999, home=tmp_path, browser=False)]


def test_on_windows_it_says_what_to_do(tmp_path: Path) -> None:
    """Where neither locks nor their module are."""
    code = (
        "import asyncio, sys, tyro; from dora_diffusion.cli import app, main\n"  # others ask for the platform too
        "sys.platform = 'win32'; sys.modules['fcntl'] = None\n"
        "sys.exit(main(['app', '--no_browser', '--home', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "WSL 2" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_asked_to(name: signal.Signals, tmp_path: Path) -> None:
    """Ctrl+C and a polite end: the port is free again, nothing is printed that looks like a fault."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from fake_studio import FakeStudio\n"
        "from dora_diffusion.config import AppConfig; from dora_diffusion.studio.ui.launch import serve\n"
        "studio = FakeStudio(Path(sys.argv[2])); studio.close = lambda: print('closed', flush=True)\n"
        "config = AppConfig(port=int(sys.argv[3]), browser=False)\n"
        "serve(studio, config, None, lambda address: print(address, flush=True))"
    )
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(here), str(tmp_path), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == f"http://127.0.0.1:{port}/\n"
        process.send_signal(name)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "closed\n")
    assert "Traceback" not in errors
