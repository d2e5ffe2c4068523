"""Train subjects on toybox with the samples' settings and draw a sheet for each: docs/sheets.md says what they show.

    python scripts/make_sheets.py --subjects teapot robot                 # rendered toys of samples/
    python scripts/make_sheets.py --photos ../shared/photos --subjects rc_car:car vase:vase

With ``--photos`` a subject is ``folder:class noun``, and its photos, being real ones, are mirrored at random.
"""

import argparse
import sys
from pathlib import Path

from dora_diffusion.cli.demo import demo_training, draw_sheet
from dora_diffusion.cli.train import run_config
from dora_diffusion.config import DemoConfig, TrainConfig
from dora_diffusion.errors import DoraError


def training_of(subject: str, photos: Path | None, output_dir: Path, steps: int | None) -> TrainConfig:
    """The settings for one subject: a sample's own, or the teapot sample's pointed at a folder of photos."""
    if photos is None:
        return demo_training(DemoConfig(subject=subject, output_dir=output_dir / subject, max_train_steps=steps))
    folder, _, noun = subject.partition(":")
    sample = demo_training(DemoConfig(output_dir=output_dir / folder, max_train_steps=steps))
    data = {"instance_data_dir": photos / folder, "class_noun": noun or folder, "random_flip": True}
    return sample.model_copy(update={"data": sample.data.model_copy(update=data)})


def main(arguments: list[str] | None = None) -> int:
    """Train and draw; print the sheets' paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", default=["teapot", "robot", "mug", "backpack", "rocket", "cat"])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("sheets"))
    parser.add_argument("--max_train_steps", type=int, help="default: as many as the samples say")
    given = parser.parse_args(arguments)
    try:
        for subject in given.subjects:
            training = training_of(subject, given.photos, given.output_dir, given.max_train_steps)
            run_config(training)
            print(draw_sheet(training, training.run.output_dir.parent / "sheet.png"))
    except DoraError as error:
        print(f"make_sheets: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
