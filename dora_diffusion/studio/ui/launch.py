"""Serving the page: to this computer alone unless a login is set, without telemetry, showing only the media folder."""

import os
from collections.abc import Callable

from dora_diffusion import machine
from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio.jobs import Studio
from dora_diffusion.studio.pictures import Pictures

LOOPBACK = ("127.0.0.1", "localhost")
ANY_ADDRESS = ("0.0.0.0", "::")


def launch(host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the studio in its home folder until it is ended; ``on_ready`` gets the page's address.

    Raises:
        StudioError: the host is not this computer and no login is set, or the port is taken.
        MachineError: Gradio is missing, or the home folder cannot be written.
    """
    login = read_login(os.environ.get("DORA_STUDIO_LOGIN"))
    check_host(host, login)
    studio = Studio(machine.home().absolute())
    serve(studio, Pictures(studio.media), host, port, login, on_ready)


def serve(
    studio: Studio,
    pictures: Pictures,
    host: str,
    port: int,
    login: tuple[str, str] | None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the page over a studio until it is ended."""
    _quiet_environment(studio)
    try:
        import gradio as gr
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise MachineError(
            "The studio needs Gradio, which is missing here: pip install 'dora-diffusion[ui]'."
        ) from error
    from dora_diffusion.studio.ui.page import STYLE, build

    page = build(studio, pictures)
    page.queue(max_size=16, default_concurrency_limit=1, api_open=False)
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=trusted_hosts(host))
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=login,
            share=False,
            allowed_paths=[str(studio.media)],
            max_file_size="25mb",
            app_kwargs={"middleware": [hosts]},
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=STYLE,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            footer_links=[],
            show_error=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise StudioError(
            f"Port {port} of {host} cannot be used: another program has it, or {host} is not this computer. "
            f"Try --port {port + 1}."
        ) from error
    on_ready(address)
    page.block_thread()


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


def check_host(host: str, login: tuple[str, str] | None) -> None:
    """Refuse to serve other computers without a login: who reaches the page sees the photos and uses the machine.

    Raises:
        StudioError: ``host`` is not this computer, and there is no login.
    """
    if host not in LOOPBACK and login is None:
        raise StudioError(
            f"--host {host} would open the studio to other computers without a password. "
            "Use 127.0.0.1, or set DORA_STUDIO_LOGIN=user:password first."
        )


def trusted_hosts(host: str) -> list[str]:
    """The names a browser may call the studio by: a foreign name that leads here is an attack (DNS rebinding).

    On all addresses the names cannot be known; there the login protects, whose cookie no foreign name gets.
    """
    return ["*"] if host in ANY_ADDRESS else sorted({*LOOPBACK, host})


def _quiet_environment(studio: Studio) -> None:
    """No telemetry and no hub, here and in the trainer that inherits this; Gradio reads it when it is imported."""
    wanted = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(studio.home / "tmp"),
    }
    os.environ.update(wanted)
    # Gradio calls its own address once, where no proxy would find it.
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*known, *LOOPBACK]))
