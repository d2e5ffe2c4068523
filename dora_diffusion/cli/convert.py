"""``dora-diffusion convert``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.cli.progress import progress_bar
from dora_diffusion.config import ConvertConfig


def run(arguments: list[str]) -> int:
    """Convert, say what it cost, and print the file."""
    config = parse(ConvertConfig, arguments, "convert")
    from dora_diffusion.formats.tools import convert_file

    with progress_bar("layers") as turn:
        made = convert_file(config, turn)
    print(made.to_text())
    return 0
