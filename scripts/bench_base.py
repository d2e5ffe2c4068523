"""What the embedded base draws, as the eye sees it: the table of docs/toybox.md.

    python scripts/bench_base.py --output_dir bench-base --prompts 1000 --split final

Prompts describe toys that were kept out of the base's training, in a place and a style. Writes ``report.json``,
``report.md``, and two sheets: the first pictures, and those where the eye sees something else than was asked for.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from dora_diffusion.cli.progress import progress_bar
from dora_diffusion.config.guidance import usual_guidance
from dora_diffusion.errors import DoraError
from dora_diffusion.evaluation.bootstrap import Interval, proportion_interval
from dora_diffusion.formats import write_bytes
from dora_diffusion.inference import Drawing, MergedPipeline, draw_tensor
from dora_diffusion.toybox.captions import describe, prompt
from dora_diffusion.toybox.draws import Instances, Split, Views, draw_instances, draw_views
from dora_diffusion.toybox.eye import Seen, load_eye
from dora_diffusion.toybox.recipe.pool import as_bytes
from dora_diffusion.toybox.recipe.sheets import write_sheet
from dora_diffusion.toybox.words import SCENES, STYLES

SPLITS = {"test": Split.TEST, "final": Split.FINAL}
BARS = {"class": 0.98, "scene": 0.98, "style": 0.97, "main colour, photo style": 0.90}
COLUMNS, SHOWN = 12, 96
SEED = 7_001  # of toys and places; the pictures' seeds count from 0


@dataclass(frozen=True)
class Asked:
    """Prompts, and what they ask for: rows of ``toys`` and ``views``."""

    prompts: list[str]
    toys: Instances
    views: Views


def main(arguments: list[str] | None = None) -> int:
    """Draw, look, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("bench-base"))
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--split", choices=[*SPLITS], default="test", help="final: for published figures only")
    parser.add_argument("--num_inference_steps", type=int, default=Drawing.num_inference_steps)
    parser.add_argument("--guidance_scale", type=float, help="default: what suits the base")
    parser.add_argument("--sampler", default=Drawing.sampler)
    parser.add_argument("--sample_batch_size", type=int, default=10)
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args(arguments)
    if given.guidance_scale is None:
        given.guidance_scale = usual_guidance(given.model)
    try:
        report, pictures, wrong = measure(given)
    except DoraError as error:
        print(f"bench_base: {error}", file=sys.stderr)
        return 2
    text = table(report, given)
    write_bytes(given.output_dir / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    write_bytes(given.output_dir / "report.md", text.encode())
    for name, rows in (("pictures", pictures[:SHOWN]), ("wrong", pictures[wrong][:SHOWN])):
        if len(rows):
            write_sheet(as_bytes(rows).split(COLUMNS), given.output_dir / f"{name}.png")
    print(text)
    return 0


def asked_for(count: int, split: Split) -> Asked:
    """``count`` descriptions of held-out toys, each in a place and a style."""
    toys = draw_instances(count, SEED, split)
    views = draw_views(toys, SEED + 1)
    styles, scenes = tuple(STYLES), tuple(SCENES)
    prompts = [
        prompt(styles[int(views.style[i])], describe(toys, i), scenes[int(views.scene[i])]) for i in range(count)
    ]
    return Asked(prompts, toys, views)


def measure(given: argparse.Namespace) -> tuple[dict[str, dict[str, float]], Tensor, Tensor]:
    """Figures by name, the pictures, and which of them (n,) the eye sees otherwise than asked for."""
    asked = asked_for(given.prompts, SPLITS[given.split])
    base = MergedPipeline(given.model, device="cpu" if given.cpu else None).base
    how = Drawing(
        num_inference_steps=given.num_inference_steps,
        guidance_scale=given.guidance_scale,
        sampler=given.sampler,
        sample_batch_size=given.sample_batch_size,
    )
    with progress_bar("drawing") as turn:
        pictures = draw_tensor(base, asked.prompts, list(range(given.prompts)), how, turn)
    right = looked_at(load_eye(device=base.device).see(pictures), asked)
    photo = asked.views.style == tuple(STYLES).index("photo")
    figures: dict[str, Interval] = {name: share(right[name]) for name in ("class", "scene", "style")}
    figures["main colour, photo style"] = share(right["color"][photo])
    wrong = ~(right["class"] & right["scene"] & right["style"] & (right["color"] | ~photo))
    return {name: asdict(found) for name, found in figures.items()}, pictures.cpu(), wrong


def looked_at(seen: Seen, asked: Asked) -> dict[str, Tensor]:
    """(n,) for class, scene, style and main colour, whether the eye sees what was asked for."""
    return {
        "class": seen.class_logits.argmax(1).cpu() == asked.toys.kind,
        "scene": seen.scene_logits.argmax(1).cpu() == asked.views.scene,
        "style": seen.style_logits.argmax(1).cpu() == asked.views.style,
        "color": seen.color_logits.argmax(1).cpu() == asked.toys.colors[:, 0],
    }


def share(right: Tensor) -> Interval:
    """The share of true entries of (n,), pictures being independent."""
    return proportion_interval(right[None, None, :, None])


def table(report: dict[str, dict[str, float]], given: argparse.Namespace) -> str:
    """The report as a table."""
    lines = [
        f"{given.prompts} prompts of the split {given.split}, {given.num_inference_steps} steps, "
        f"guidance {given.guidance_scale:g}.",
        "",
        "| seen as asked | share | 95 % interval | bar |",
        "|---|---|---|---|",
    ]
    for name, found in report.items():
        lines.append(
            f"| {name} | {found['value']:.3f} | {found['low']:.3f} to {found['high']:.3f} | {BARS[name]:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
