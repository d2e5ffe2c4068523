"""``dora-diffusion merge``."""

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import MergeConfig
from dora_diffusion.machine import check_writable


def run(arguments: list[str]) -> int:
    """Merge and print the folder."""
    config = parse(MergeConfig, arguments, "merge")
    check_writable(config.output_dir, 0)
    from dora_diffusion.inference import merge

    print(merge(config))
    return 0
