"""Draw the sheets of docs/toybox.md: every class of toy, and every scene.

python scripts/make_world_sheets.py
"""

import argparse
import sys
from pathlib import Path

from dora_diffusion.toybox.draws import Instances, Views, draw_instances, draw_views
from dora_diffusion.toybox.recipe.pool import as_bytes
from dora_diffusion.toybox.recipe.sheets import tiles
from dora_diffusion.toybox.render import render
from dora_diffusion.toybox.words import CLASSES, SCENES

EACH = 3
COLUMNS = 9
SIDE = 128


def classes(seed: int) -> tuple[Instances, Views]:
    """Three toys of every class, in the studio."""
    toys = Instances.cat([draw_instances(EACH, seed + k, classes=[name]) for k, name in enumerate(CLASSES)])
    return toys, draw_views(toys, seed, scenes=["studio"], styles=["photo"])


def scenes(seed: int) -> tuple[Instances, Views]:
    """Three pictures of every scene."""
    toys = draw_instances(EACH * len(SCENES), seed)
    seen = [
        draw_views(toys.take(slice(EACH * k, EACH * (k + 1))), seed + k, scenes=[name], styles=["photo"])
        for k, name in enumerate(SCENES)
    ]
    return toys, Views.cat(seen)


def main(arguments: list[str] | None = None) -> int:
    """Render both sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parents[1] / "docs")
    parser.add_argument("--seed", type=int, default=77)
    given = parser.parse_args(arguments)
    for name, drawn in {"toybox_classes": classes, "toybox_scenes": scenes}.items():
        path = given.output_dir / f"{name}.jpg"
        pictures = as_bytes(render(*drawn(given.seed), SIDE, 3).images)
        tiles(pictures.split(COLUMNS)).save(path, quality=88)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
