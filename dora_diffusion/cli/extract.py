"""``dora-diffusion extract``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.cli.progress import progress_bar
from dora_diffusion.config import ExtractConfig


def run(arguments: list[str]) -> int:
    """Extract, say what it cost, and print the file."""
    config = parse(ExtractConfig, arguments, "extract")
    from dora_diffusion.formats.tools import extract_models

    with progress_bar("layers") as turn:
        made = extract_models(config, turn)
    print(made.to_text())
    return 0
