"""Make the embedded base model, from seeds to weights, stage by stage.

    python scripts/train_toybox.py --stage autoencoder --work_dir work --minutes 18
    python scripts/train_toybox.py --stage diffusion --work_dir work --minutes 18 --set loop.batch=512 pool.workers=12
    python scripts/train_toybox.py --stage eye --work_dir work --minutes 15
    python scripts/train_toybox.py --stage pack --work_dir work

    torchrun --standalone --nproc_per_node 2 scripts/train_toybox.py --stage diffusion --work_dir work --minutes 18

The last line trains on two GPUs: loop.batch pictures a step on each, and pool.workers caption writers for each. The
stages autoencoder, diffusion and eye can do that; their files count the pictures of all GPUs.

A stage that is run again goes on from its last output. On a fresh machine, --from_dir names the work folder of the last
one, or a packed model: dora_diffusion/toybox/model to go on from the weights that are shipped. --smoke does everything
once, in seconds, on a CPU.
"""

import argparse
import sys
import time
from pathlib import Path

from dora_diffusion.errors import DoraError
from dora_diffusion.toybox.recipe import STAGES


def main(arguments: list[str] | None = None) -> int:
    """Run one stage and return the exit status: 0, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", required=True, choices=list(STAGES), help="which one")
    parser.add_argument("--work_dir", required=True, type=Path, help="folder of the recipe, one folder a stage")
    parser.add_argument("--from_dir", type=Path, help="work folder, or packed model, to copy from what work_dir lacks")
    parser.add_argument("--minutes", type=float, help="end by then, and save; the learning rate falls by the time")
    parser.add_argument("--device", default="", help="cuda or cpu; left out, the fastest there is")
    parser.add_argument("--smoke", action="store_true", help="tiny networks and a few steps")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings than the default")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except DoraError as error:
        print(f"train_toybox {given.stage}: {error}", file=sys.stderr)
        return 2


def _run(given: argparse.Namespace) -> int:
    from dora_diffusion.toybox.recipe.run import run_stage, stage_settings

    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:7.1f} s] {line}", flush=True)

    settings = stage_settings(given.stage, given.set, given.smoke)
    run_stage(given.stage, settings, given.work_dir, given.from_dir, given.device, given.minutes, log)
    return 0


if __name__ == "__main__":
    sys.exit(main())
