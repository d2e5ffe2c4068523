"""Attention backends beside each other on UNets of full size: do they agree, how long is a step, what does auto take?

    PYTHONPATH=. python scripts/bench_attention.py --models sd15 sdxl --batch_sizes 1,4 --steps 20 --json attention.json

Every backend gets the same weights, adapters, batch and noise, and they take turns, one training step each. How far a
backend's prediction is from sdpa's is told beside how far sdpa's is from float32: that is what rounding alone makes.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from bench_step import UNETS, Setting, Step, Task, batch_sizes, count, header, make_task, ours_step, timed
from torch import Tensor

from dora_diffusion.errors import DoraError
from dora_diffusion.models import choose_attention
from dora_diffusion.registry import ATTENTION_BACKENDS

WARM_UP = 3


@dataclass
class Result:
    """One backend. ``got``: what it came to, in words; ``from_sdpa``: relative distance of its prediction."""

    wanted: str
    got: str
    from_sdpa: float
    ms: list[float] = field(default_factory=list)


@dataclass
class Comparison:
    """All backends on one model. ``rounding``: relative distance of sdpa's prediction from float32's."""

    model: str
    batch_size: int
    rounding: float
    results: list[Result]


def compare(setting: Setting) -> Comparison:
    """Every backend and ``auto`` on one model.

    Raises:
        MachineError: no attention runs at all.
    """
    reference = Setting(setting.model, setting.batch_size, setting.rank, setting.steps, setting.device, full=True)
    exact = predict(make_task(reference))
    sdpa, runners = exact, []
    for wanted in [*ATTENTION_BACKENDS, "auto"]:
        task = make_task(setting)
        got = choose_attention(task.unet, wanted)
        predicted = predict(task)
        sdpa = predicted if wanted == "sdpa" else sdpa
        step, _ = ours_step(task, setting, "dora")
        for _ in range(WARM_UP):
            step()
        runners.append((step, Result(wanted, got, relative(predicted, sdpa))))
    take_turns(runners, setting)
    return Comparison(setting.model, setting.batch_size, relative(sdpa, exact), [result for _, result in runners])


def take_turns(runners: Sequence[tuple[Step, Result]], setting: Setting) -> None:
    """One step each a round, the round starting with another backend every time."""
    for turn in range(setting.steps):
        first = turn % len(runners)
        for step, result in [*runners[first:], *runners[:first]]:
            result.ms.append(timed(step, setting.device))


@torch.no_grad()
def predict(task: Task) -> Tensor:
    """The UNet's output for the batch, (b, channels, h, w), float32."""
    return task.predict().float()


def relative(value: Tensor, reference: Tensor) -> float:
    """Norm of the difference as a share of the reference's norm."""
    return float((value - reference).norm() / reference.norm())


def table(comparisons: Sequence[Comparison]) -> str:
    """All of it, in Markdown."""
    lines = ["| model, batch | asked | got | ms a step | from sdpa | sdpa from float32 |", "|---|---|---|---|---|---|"]
    for found in comparisons:
        for result in found.results:
            ms = f"{statistics.median(result.ms):.1f} ({min(result.ms):.1f} to {max(result.ms):.1f})"
            where = f"{found.model}, {found.batch_size}"
            lines.append(
                f"| {where} | {result.wanted} | {result.got} | {ms} | {result.from_sdpa:.4f} | {found.rounding:.4f} |"
            )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=["toybox", *UNETS], default=["sd15", "sdxl"])
    parser.add_argument("--batch_sizes", type=batch_sizes, default=[1], metavar="N,N")
    parser.add_argument("--rank", type=count, default=16)
    parser.add_argument("--steps", type=count, default=20, help="timed steps of each backend")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    args = parse(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    comparisons = []
    try:
        for model in args.models:
            for size in args.batch_sizes:
                comparisons.append(compare(Setting(model, size, args.rank, args.steps, device)))
                print(table(comparisons[-1:]), flush=True)
    except DoraError as error:
        print(f"bench_attention: {error}", file=sys.stderr)
        return 2
    if args.json:
        report: dict[str, Any] = {**header(args, device), "comparisons": [asdict(found) for found in comparisons]}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
