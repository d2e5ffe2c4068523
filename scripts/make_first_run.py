"""Draw what the studio's first page shows: new pictures of the sample teapot, by toybox once it has learnt it.

    dora-diffusion train samples/teapot.yaml
    python scripts/make_first_run.py runs/teapot

Writes one small JPEG a scene to dora_diffusion/studio/ui/example/; five minutes with the training, on two cores.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from dora_diffusion import GenerateConfig, generate
from dora_diffusion.studio.ui.first_run import DRAWN, SCENES

SEED = 0
MOST_BYTES = 15_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, help="the run's folder, or its adapter file")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output_dir", type=Path, default=DRAWN)
    wanted = parser.parse_args()
    wanted.output_dir.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        for name, words in SCENES.items():
            prompt = f"a photo of sks teapot {words}"
            config = GenerateConfig(
                adapter=wanted.adapter,
                prompt=prompt,
                seed=wanted.seed,
                num_images=1,
                output_dir=Path(folder) / name,
            )
            target = wanted.output_dir / f"{name}.jpg"
            with Image.open(generate(config)[0]) as picture:
                picture.convert("RGB").save(target, "JPEG", quality=95, subsampling=0, optimize=True)
            if target.stat().st_size > MOST_BYTES:
                raise SystemExit(f"{target.name} has {target.stat().st_size} bytes, and {MOST_BYTES} are allowed.")
            print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
