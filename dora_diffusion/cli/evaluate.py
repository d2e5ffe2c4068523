"""``dora-diffusion evaluate --adapter RUN [--json]``."""

import json

from dora_diffusion.cli.parse import parse
from dora_diffusion.cli.progress import progress_bar, say_above
from dora_diffusion.config import EvaluateConfig


def run(arguments: list[str]) -> int:
    """Draw, look, and print the figures."""
    config = parse(EvaluateConfig, arguments, "evaluate")
    from dora_diffusion.evaluation import evaluate

    with progress_bar("drawing") as turn:
        found = evaluate(config, turn, say_above)
    print(json.dumps(found.to_json(), indent=2) if config.as_json else found.to_text())
    return 0
