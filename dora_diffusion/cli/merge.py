"""``dora-diffusion merge``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import MergeConfig


def run(arguments: list[str]) -> int:
    """Merge and print the folder."""
    config = parse(MergeConfig, arguments, "merge")
    from dora_diffusion.inference import merge

    print(merge(config))
    return 0
