"""``--mcp``: the endpoints as tools of the Model Context Protocol, at /gradio_api/mcp/."""

from importlib import metadata
from typing import Any

from dora_diffusion.errors import MachineError, StudioError

LEAST, BELOW = (1, 21), (2, 0)  # versions of mcp that Gradio speaks with
ADDRESS = "gradio_api/mcp/"


def check_mcp(login: object | None) -> None:
    """Refuse what would not work, or would be open to everybody, before anything is started.

    Raises:
        MachineError: the package mcp is missing, or of a version that Gradio cannot use. Gradio itself would start
            without MCP, and say nothing.
        StudioError: a login is set. Gradio's MCP endpoint does not ask for it: whoever reaches the port could use it.
    """
    if login is not None:
        raise StudioError(
            "--mcp and DORA_STUDIO_LOGIN do not go together: the MCP endpoint would answer without the login. "
            "Leave one of them out."
        )
    try:
        version = metadata.version("mcp")
    except metadata.PackageNotFoundError:
        raise MachineError(
            "--mcp needs the package mcp, which is missing here: pip install 'dora-diffusion[mcp]'."
        ) from None
    if not LEAST <= _numbers(version) < BELOW:
        raise MachineError(
            f"--mcp needs mcp 1.21 or newer, and below 2; {version} is installed: pip install 'dora-diffusion[mcp]'."
        )


def check_served(page: Any) -> None:
    """Refuse a page that was served without its MCP endpoint.

    Raises:
        MachineError: Gradio could not make it; with what it said.
    """
    if page.mcp_error or not page.mcp_server:
        raise MachineError(f"MCP could not be started: {page.mcp_error or 'Gradio did not say why.'}")


def _numbers(version: str) -> tuple[int, ...]:
    """(1, 30) of "1.30.0"."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
