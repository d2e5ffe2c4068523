"""``dora-diffusion resize``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.cli.progress import progress_bar
from dora_diffusion.config import ResizeConfig


def run(arguments: list[str]) -> int:
    """Resize, say what it cost, and print the file."""
    config = parse(ResizeConfig, arguments, "resize")
    from dora_diffusion.formats.tools import resize_file

    with progress_bar("layers") as turn:
        made = resize_file(config, turn)
    print(made.to_text())
    return 0
