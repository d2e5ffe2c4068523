"""``dora-diffusion export``."""

import sys

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import ExportConfig


def run(arguments: list[str]) -> int:
    """Export, say what its readers make of the file, and print it."""
    config = parse(ExportConfig, arguments, "export")
    from dora_diffusion.formats import export
    from dora_diffusion.formats.verify import table

    print(export(config, lambda found: print(table(found), file=sys.stderr) if found else None))
    return 0
