"""``dora-diffusion combine``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.cli.progress import progress_bar
from dora_diffusion.config import CombineConfig


def run(arguments: list[str]) -> int:
    """Combine, say what it cost, and print the file."""
    config = parse(CombineConfig, arguments, "combine")
    from dora_diffusion.formats.tools import combine_files

    with progress_bar("layers") as turn:
        made = combine_files(config, turn)
    print(made.to_text())
    return 0
