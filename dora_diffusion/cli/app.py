"""``dora-diffusion app``: the studio in a browser."""

import argparse

from dora_diffusion.studio.ui.launch import launch


def run(arguments: list[str]) -> int:
    """Serve the studio until it is ended; returns the exit status.

    Raises:
        StudioError, MachineError: see ``launch``.
    """
    parser = argparse.ArgumentParser(prog="dora-diffusion app", description="The studio: teach and draw in a browser.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve; others need DORA_STUDIO_LOGIN=user:password"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to serve")
    flags = parser.parse_args(arguments)
    launch(
        flags.host, flags.port, on_ready=lambda address: print(f"DoRA Studio: {address} (Ctrl+C ends it)", flush=True)
    )
    return 0
