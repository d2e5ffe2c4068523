"""``dora-diffusion generate``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.cli.progress import progress_bar
from dora_diffusion.config import GenerateConfig


def run(arguments: list[str]) -> int:
    """Draw and print the files."""
    config = parse(GenerateConfig, arguments, "generate")
    from dora_diffusion.inference import generate

    with progress_bar("drawing") as turn:
        paths = generate(config, turn)
    print("\n".join(str(path) for path in paths))
    return 0
