"""``dora-diffusion app``: the studio in a browser."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import AppConfig
from dora_diffusion.studio.ui.launch import launch


def run(arguments: list[str]) -> int:
    """Serve the studio until it is ended; returns the exit status.

    Raises:
        ConfigError: a flag is wrong.
        StudioError, MachineError: see ``launch``.
    """
    config = parse(AppConfig, arguments, "app")
    launch(config, on_ready=_say)
    return 0


def _say(address: str) -> None:
    print(f"DoRA Studio: {address} (Ctrl+C ends it; a training that runs goes on)", flush=True)
