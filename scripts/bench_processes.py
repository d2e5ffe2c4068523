"""One training run on one process and on several at the same global batch: is it the same run, and how long is a step?

    PYTHONPATH=. python scripts/bench_processes.py --model toybox --processes 1 2 --global_batch 4 --steps 20

Each run is started with ``accelerate launch``. Told per run: the median step, and how far its losses, AdamW's means of
the gradients and its adapter are from the first run's, as shares of their norms. Several processes add parts of a sum
that one adds in one go; in float32 that is all that may differ. Half precision also rounds each batch size's products
in its own way, so give ``--mixed_precision no`` to see whether the runs are equal.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dora_diffusion.formats import WEIGHTS_NAME, read_safetensors
from dora_diffusion.training.run_folder import METRICS

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "train_dreambooth_dora.py"
PHOTOS = ROOT / "samples" / "subjects" / "teapot"
WARM_UP = 3  # steps that are not timed


@dataclass
class Row:
    """One run beside the first. ``ms``: the median step; the others are relative distances from the first run."""

    processes: int
    ms: float
    loss: float
    losses_apart: float
    gradients_apart: float
    adapters_apart: float


def launch(processes: int, folder: Path, args: argparse.Namespace) -> None:
    """Train in ``folder``.

    Raises:
        RuntimeError: the run failed; with the end of what it said.
    """
    several = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--dynamo_backend", "no"]
    shape = ["--num_processes", str(processes), "--mixed_precision", args.mixed_precision]
    flags = ["--pretrained_model_name_or_path", args.model, "--instance_data_dir", str(PHOTOS), "--center_crop"]
    flags += ["--class_noun", "teapot", "--output_dir", str(folder), "--overwrite", "--seed", "0"]
    flags += ["--max_train_steps", str(args.steps), "--checkpointing_steps", str(args.steps)]
    flags += ["--train_batch_size", str(args.global_batch // processes), "--mixed_precision", args.mixed_precision]
    flags += ["--cpu"] if args.cpu else []
    done = subprocess.run(
        [*launcher, *several, *shape, str(SCRIPT), *flags, *args.train], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"The run on {processes} processes failed:\n{done.stderr[-3000:]}")


def compare(folder: Path, first: Path, processes: int, steps: int) -> Row:
    """What came of the run in ``folder``, beside the run in ``first``."""
    rows, expected = metrics(folder), metrics(first)
    losses = [torch.tensor([row["loss"] for row in those]) for those in (rows, expected)]
    optimizer = f"checkpoint-{steps}/optimizer.safetensors"
    return Row(
        processes,
        statistics.median(row["step_ms"] for row in rows[WARM_UP:]),
        rows[-1]["loss"],
        float((losses[0] - losses[1]).norm() / losses[1].norm()),
        apart(folder / optimizer, first / optimizer, ".exp_avg"),
        apart(folder / WEIGHTS_NAME, first / WEIGHTS_NAME, ""),
    )


def metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics."""
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]


def apart(ours: Path, theirs: Path, ending: str) -> float:
    """Relative distance of all tensors with such names in two files, taken as one vector."""
    (a, _), (b, _) = read_safetensors(ours), read_safetensors(theirs)
    names = [name for name in b if name.endswith(ending)]
    difference = math.fsum(float((a[name].double() - b[name].double()).square().sum()) for name in names)
    size = math.fsum(float(b[name].double().square().sum()) for name in names)
    return math.sqrt(difference / size)


def table(rows: Sequence[Row]) -> str:
    """All of it, in Markdown."""
    lines = ["| processes | ms a step | last loss | losses apart | gradients apart | adapters apart |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        figures = f"{row.losses_apart:.1e} | {row.gradients_apart:.1e} | {row.adapters_apart:.1e}"
        lines.append(f"| {row.processes} | {row.ms:.1f} | {row.loss:.4f} | {figures} |")
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="toybox", help="toybox or a pipeline folder")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--global_batch", type=int, default=4, help="shared out over the processes")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--mixed_precision", choices=["no", "bf16", "fp16"], default="no")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--output_dir", type=Path, default=Path("bench-processes"))
    parser.add_argument("--train", nargs=argparse.REMAINDER, default=[], help="further flags of the training script")
    args = parser.parse_args(argv)
    uneven = [number for number in args.processes if number < 1 or args.global_batch % number]
    if uneven:
        parser.error(f"--global_batch {args.global_batch} cannot be shared out over {uneven[0]} processes")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    args = parse(argv)
    folders = {number: args.output_dir / f"{number}-processes" for number in args.processes}
    rows = []
    try:
        for number, folder in folders.items():
            launch(number, folder, args)
            rows.append(compare(folder, folders[args.processes[0]], number, args.steps))
    except RuntimeError as error:
        print(f"bench_processes: {error}", file=sys.stderr)
        return 2
    text = table(rows)
    print(text)
    (args.output_dir / "report.md").write_text(text + "\n", encoding="utf-8")
    (args.output_dir / "report.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
