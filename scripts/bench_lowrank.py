"""What a DoRA loses as a plain LoRA, rank by rank: the residual of its weights, and the likeness of its pictures.

    python scripts/bench_lowrank.py --output_dir bench_lowrank
    python scripts/bench_lowrank.py --output_dir bench_lowrank --adapter runs/teapot

One subject of the embedded base is trained (or its run is given), turned into LoRAs by SVD, and each of them is judged
with the same prompts and seeds. ``lowrank.md`` holds the table, ``lowrank.png`` the plot. Told is the smallest rank
whose likeness lies within ``CLOSE`` of the DoRA's; the default of plain LoRAs (``formats/approximation.py``) is larger,
because a subject or two of a small base cannot vouch for others.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dora_diffusion.adapters.lowrank import RankRule
from dora_diffusion.adapters.plain_lora import plain_lora
from dora_diffusion.config import EvaluateConfig, TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import ConfigError, DoraError
from dora_diffusion.evaluation import evaluate
from dora_diffusion.formats import load_adapter, write_bytes
from dora_diffusion.formats.base_files import open_base
from dora_diffusion.formats.diffusers_format import DIFFUSERS
from dora_diffusion.machine import require_package
from dora_diffusion.training import train

CLOSE = 0.01  # of likeness, where 0 is the base and 1 another photo of the subject


@dataclass(frozen=True)
class Row:
    """One adapter. ``rank`` is None for the DoRA itself; ``low`` and ``high`` bound the likeness."""

    rank: int | None
    residual: float
    worst_residual: float
    likeness: float
    low: float
    high: float
    mib: float
    seconds: float


def main(arguments: list[str] | None = None) -> int:
    """Train if need be, convert, judge, and print the table."""
    given = _arguments(arguments)
    try:
        rows = measure(given)
    except DoraError as error:
        print(f"bench_lowrank: {error}", file=sys.stderr)
        return 2
    text = markdown(rows)
    write_bytes(given.output_dir / "lowrank.md", text.encode())
    write_bytes(given.output_dir / "lowrank.json", json.dumps([asdict(row) for row in rows], indent=2).encode())
    plot(rows, given.output_dir / "lowrank.png")
    print(text)
    return 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("samples/teapot.yaml"), help="settings of the training")
    parser.add_argument("--adapter", type=Path, help="a run's folder; left out, one is trained")
    parser.add_argument("--output_dir", type=Path, default=Path("bench_lowrank"))
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--num_images", type=int, default=2, help="pictures a scene; there are eight scenes")
    parser.add_argument("--num_inference_steps", type=int, default=25)
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_args(arguments)


def measure(given: argparse.Namespace) -> list[Row]:
    """The DoRA, then a LoRA of every rank.

    Raises:
        DoraError: nothing can be trained or read, or the adapter is no DoRA of a class that the eye knows.
    """
    run = given.adapter or _trained(given)
    state = load_adapter(run)
    if state.kind != "dora":
        raise ConfigError(f"{run} is a {state.kind}, which is a plain LoRA already; give a DoRA.")
    bases = open_base(state.base_name).weights
    file = given.output_dir / "dora.safetensors"
    DIFFUSERS.write(state, file)
    rows = [Row(None, 0.0, 0.0, *_likeness(file, run, given), _mib(file), 0.0)]
    for rank in sorted(given.ranks):
        began = time.perf_counter()
        lora, fits = plain_lora(state, bases, RankRule(rank))
        seconds = time.perf_counter() - began
        file = given.output_dir / f"lora-{rank}.safetensors"
        DIFFUSERS.write(lora, file)
        likeness = _likeness(file, run, given)
        rows.append(Row(rank, fits.residual, fits.worst[1], *likeness, _mib(file), seconds))
    return rows


def smallest_close_rank(rows: list[Row]) -> int | None:
    """The smallest rank whose likeness is within ``CLOSE`` of the DoRA's, or None."""
    target = rows[0].likeness - CLOSE
    return next((row.rank for row in rows[1:] if row.likeness >= target), None)


def markdown(rows: list[Row]) -> str:
    """The rows as a table, and the rank that follows from it."""
    lines = [
        "| adapter | residual | worst layer | likeness (95 % interval) | MiB | seconds to make |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = "DoRA" if row.rank is None else f"LoRA, rank {row.rank}"
        made = "" if row.rank is None else f"{row.seconds:.1f}"
        lines.append(
            f"| {name} | {row.residual:.1%} | {row.worst_residual:.1%} | {row.likeness:.3f} ({row.low:.3f} to "
            f"{row.high:.3f}) | {row.mib:.1f} | {made} |"
        )
    chosen = smallest_close_rank(rows)
    named = "No rank here has a" if chosen is None else f"Rank {chosen} is the smallest that has a"
    lines += ["", f"{named} likeness within {CLOSE:g} of the DoRA's.", ""]
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Residual and likeness against rank, the DoRA's likeness as a line. Raises: MachineError: no matplotlib."""
    require_package("matplotlib", "eval", "The plot")
    from matplotlib.figure import Figure

    loras = [row for row in rows if row.rank is not None]
    ranks = [row.rank or 0 for row in loras]
    figure = Figure(figsize=(6, 4), layout="constrained")
    left = figure.subplots()
    left.plot(ranks, [row.residual for row in loras], "o-", color="tab:blue", label="residual of the weights")
    left.set_xscale("log", base=2)
    left.set_xticks(ranks, [str(rank) for rank in ranks])
    left.set_xlabel("rank of the LoRA")
    left.set_ylabel("residual", color="tab:blue")
    left.set_ylim(0, None)
    right = left.twinx()
    errors = [[row.likeness - row.low for row in loras], [row.high - row.likeness for row in loras]]
    right.errorbar(ranks, [row.likeness for row in loras], errors, fmt="s-", color="tab:red", capsize=3)
    right.axhline(rows[0].likeness, color="tab:red", linestyle="--", linewidth=1)
    right.set_ylabel("likeness (dashed: the DoRA itself)", color="tab:red")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _trained(given: argparse.Namespace) -> Path:
    settings = load_yaml(TrainConfig, given.config)
    folder = given.output_dir / "run"
    run = settings.run.model_copy(update={"output_dir": folder, "validation_prompt": []})
    train(settings.model_copy(update={"run": run}))
    return folder


def _likeness(file: Path, run: Path, given: argparse.Namespace) -> tuple[float, float, float]:
    """Likeness and its interval."""
    photos = load_yaml(TrainConfig, run / "config.yaml").data.instance_data_dir if run.is_dir() else None
    found = evaluate(
        EvaluateConfig(
            adapter=file,
            instance_data_dir=photos,
            num_images=given.num_images,
            num_drift_images=0,
            num_inference_steps=given.num_inference_steps,
            cpu=given.cpu,
        )
    )
    if found.refusal is not None:
        raise ConfigError(f"The likeness of {file} cannot be measured: {found.refusal}")
    likeness = found.figures["likeness"]
    return likeness.value, likeness.low, likeness.high


def _mib(file: Path) -> float:
    return file.stat().st_size / 1024**2


if __name__ == "__main__":
    sys.exit(main())
