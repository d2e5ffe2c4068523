"""Serving the page: to this computer alone unless a login is set, without telemetry, showing only the media folder."""

import contextlib
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dora_diffusion import machine
from dora_diffusion.config import AppConfig
from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio.studio import Studio
from dora_diffusion.studio.ui.mcp import check_mcp, check_served

LOOPBACK = ("127.0.0.1", "localhost")
ANY_ADDRESS = ("0.0.0.0", "::")
SHARED_NAMES = "*.gradio.live"

OnReady = Callable[[str], None]


def launch(config: AppConfig, on_ready: OnReady) -> None:
    """Serve the studio in its home folder until it is ended; ``on_ready`` gets the page's address.

    Raises:
        StudioError: the host is not this computer and no login is set, the port is taken, or MCP would be open to all.
        MachineError: Gradio is missing, or what MCP needs, or the home folder cannot be written.
    """
    login = read_login(os.environ.get("DORA_STUDIO_LOGIN"))
    check_host(config.host, login, config.share)
    if config.mcp:
        check_mcp(login)
    home = (config.home or machine.home()).expanduser().absolute()
    os.environ["DORA_HOME"] = str(home)  # the trainers' caches lie there too
    serve(Studio(home), config, login, on_ready)


def serve(studio: Studio, config: AppConfig, login: tuple[str, str] | None, on_ready: OnReady) -> None:
    """Serve the page over a studio until it is ended by Ctrl+C or a signal; trainings go on without it."""
    _quiet_environment(studio.home.tmp)
    try:
        import gradio  # noqa: F401 - whether it is there
    except ImportError as error:
        raise MachineError(
            "The studio needs Gradio, which is missing here: pip install 'dora-diffusion[ui]'."
        ) from error
    with _ended() as end:
        page, address = _open(studio, config, login)
        try:
            if config.mcp:
                check_served(page)
            studio.start()
            on_ready(address)
            if config.browser and _has_screen():
                webbrowser.open(address)
            end.wait()
        finally:
            page.close(verbose=False)
            studio.close()


def _open(studio: Studio, config: AppConfig, login: tuple[str, str] | None) -> tuple[Any, str]:
    """The page, served, and its address."""
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from dora_diffusion.studio.ui.guard import Guard
    from dora_diffusion.studio.ui.offline import fetch_nothing
    from dora_diffusion.studio.ui.page import STYLES, build, theme

    fetch_nothing()
    gr.set_static_paths([studio.home.media])  # served where they lie: a copy of each picture and model is not made
    page = build(studio)
    page.queue(max_size=64, default_concurrency_limit=1, api_open=False)
    hosts = trusted_hosts(config.host, config.share)
    try:
        _, address, public = page.launch(
            server_name=config.host,
            server_port=config.port,
            auth=login,
            share=config.share,
            allowed_paths=[str(studio.home.media)],
            max_file_size="25mb",
            app_kwargs={"middleware": [Middleware(Guard), Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]},
            theme=theme(),
            css_paths=STYLES,
            favicon_path=Path(__file__).with_name("favicon.svg"),
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=config.mcp,
            footer_links=["api"],
            show_error=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise StudioError(
            f"Port {config.port} of {config.host} cannot be used: another program has it, or {config.host} is not this "
            f"computer. Try --port {config.port + 1}."
        ) from error
    return page, public or address


@contextlib.contextmanager
def _ended() -> Iterator[threading.Event]:
    """An event that Ctrl+C and a polite end (SIGTERM) set."""
    end = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield end
        return
    before = {name: signal.signal(name, lambda *_: end.set()) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield end
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _has_screen() -> bool:
    """Whether a browser could show itself here; without one, a browser for terminals would take the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def read_login(text: str | None) -> tuple[str, str] | None:
    """User and password from ``user:password``; None where nothing is set.

    Raises:
        StudioError: one of the two is missing.
    """
    if not text:
        return None
    user, _, password = text.partition(":")
    if not user or not password:
        raise StudioError("DORA_STUDIO_LOGIN is written user:password, and neither may be empty.")
    return user, password


def check_host(host: str, login: tuple[str, str] | None, share: bool = False) -> None:
    """Refuse to serve other computers without a login: who reaches the page sees the photos and uses the machine.

    Raises:
        StudioError: ``host`` is not this computer or the page is to be shared, and there is no login.
    """
    if share and login is None:
        raise StudioError(
            "--share would open the studio to everybody who has the link. Set DORA_STUDIO_LOGIN=user:password first."
        )
    if host not in LOOPBACK and login is None:
        raise StudioError(
            f"--host {host} would open the studio to other computers without a password. "
            "Use 127.0.0.1, or set DORA_STUDIO_LOGIN=user:password first."
        )


def trusted_hosts(host: str, share: bool = False) -> list[str]:
    """The names a browser may call the studio by: a foreign name that leads here is an attack (DNS rebinding).

    On all addresses the names cannot be known; there the login protects, whose cookie no foreign name gets.
    """
    if host in ANY_ADDRESS:
        return ["*"]
    return sorted({*LOOPBACK, host, *([SHARED_NAMES] if share else [])})


def _quiet_environment(uploads: Path) -> None:
    """No telemetry and no hub, here and in the processes that inherit this; Gradio reads it when it is imported."""
    wanted = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(uploads),
    }
    os.environ.update(wanted)
    # Gradio calls its own address once, where no proxy would find it.
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*known, *LOOPBACK]))
