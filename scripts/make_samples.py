"""Render the sample subjects: toys that neither the embedded base nor its eye was trained on.

    python scripts/make_samples.py

Writes five training photos each to samples/subjects/<name>/, and three that are held out, in other scenes, to
samples/held_out/<name>/. The same pictures on every machine, but for rounding.
"""

import argparse
import shutil
import sys
from pathlib import Path

from torch import Tensor

from dora_diffusion.inference.draw import pictures_of
from dora_diffusion.toybox.draws import Instances, Split, Views, draw_instances, draw_views
from dora_diffusion.toybox.render import render
from dora_diffusion.toybox.words import REFERENCE_SCENES

SIZE = 512
HELD_OUT_SCENES = ("beach", "snow", "forest")
JPEG_QUALITY = 90

# Class, seed and place of each subject's toy among the toys of that seed, and the seed of its views.
SUBJECTS = {
    "teapot": ("teapot", 100, 3, 1),
    "robot": ("robot", 101, 2, 2),
    "mug": ("mug", 102, 4, 3),
    "backpack": ("backpack", 103, 6, 4),
    "rocket": ("rocket", 104, 3, 5),
    "cat": ("cat", 105, 8, 6),
}


def subject(name: str) -> Instances:
    """The one toy of a sample."""
    kind, seed, place, _ = SUBJECTS[name]
    return draw_instances(place + 1, seed, Split.TEST, classes=[kind]).take([place])


def views(name: str) -> Views:
    """One view in each scene, training scenes first."""
    toy, seed = subject(name), SUBJECTS[name][3]
    return Views.cat(
        [
            draw_views(toy, 100 * seed + number, scenes=[scene], styles=["photo"])
            for number, scene in enumerate((*REFERENCE_SCENES, *HELD_OUT_SCENES))
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Render every subject."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parents[1] / "samples")
    parser.add_argument("--size", type=int, default=SIZE, help="side in pixels")
    given = parser.parse_args(arguments)
    for name in SUBJECTS:
        seen = views(name)
        pictures = render(Instances.cat([subject(name)] * len(seen)), seen, given.size).images
        count = len(REFERENCE_SCENES)
        _write(given.output_dir / "subjects" / name, REFERENCE_SCENES, pictures[:count])
        _write(given.output_dir / "held_out" / name, HELD_OUT_SCENES, pictures[count:])
        print(name)
    return 0


def _write(folder: Path, scenes: tuple[str, ...], pixels: Tensor) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for scene, picture in zip(scenes, pictures_of(pixels), strict=True):
        picture.save(folder / f"{scene}.jpg", quality=JPEG_QUALITY)


if __name__ == "__main__":
    sys.exit(main())
