"""``dora-diffusion app``: the studio in a browser."""

import sys

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import AppConfig
from dora_diffusion.errors import MachineError


def run(arguments: list[str]) -> int:
    """Serve the studio until it is ended; returns the exit status.

    Raises:
        ConfigError: a flag is wrong.
        StudioError, MachineError: see ``launch``; or this is Windows itself, which lacks the studio's locks.
    """
    config = parse(AppConfig, arguments, "app")
    if sys.platform == "win32":
        raise MachineError(
            "The studio does not run on Windows itself: it needs locks and sessions that only Linux and macOS have. "
            "Install WSL 2 (`wsl --install`), install dora-diffusion there, and start it there; its page opens in "
            "the browser of Windows as well."
        )
    from dora_diffusion.studio.ui.launch import launch  # not there on Windows

    launch(config, on_ready=_say)
    return 0


def _say(address: str) -> None:
    print(f"DoRA Studio: {address} (Ctrl+C ends it; a training that runs goes on)", flush=True)
