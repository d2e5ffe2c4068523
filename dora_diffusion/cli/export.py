"""``dora-diffusion export``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import ExportConfig


def run(arguments: list[str]) -> int:
    """Export and print the file."""
    config = parse(ExportConfig, arguments, "export")
    from dora_diffusion.formats import export

    print(export(config))
    return 0
