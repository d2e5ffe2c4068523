"""How well subjects that nobody has seen are learned: the figures of docs/likeness.md.

    python scripts/bench_likeness.py --config samples/teapot.yaml --output_dir bench --seeds 0 1 --kinds dora lora
    python scripts/bench_likeness.py --options scripts/options.yaml --subjects 6 --seeds 0 1 2

Toys kept out of the base's and the eye's training are rendered: five photos each in the reference scenes to train on,
others in the prompts' scenes held out. Every subject is trained with every kind of adapter and seed, then drawn and
measured. ``--options`` names settings to compare instead of kinds: a YAML file, each name with what it changes in the
config. Photos come with true masks; a config with any ``mask_data_dir`` trains with them.

What is finished is kept in ``output_dir`` and not done again; ``report.json`` and ``report.md`` hold the figures.
Picture seeds are the same for every kind of adapter, and others for every training seed.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import build, read_yaml
from dora_diffusion.config.guidance import usual_guidance
from dora_diffusion.config.presets import lay_over
from dora_diffusion.data.photos import list_photos
from dora_diffusion.errors import ConfigError, DoraError
from dora_diffusion.evaluation.copies import repeats
from dora_diffusion.evaluation.evaluate import BASE, contact_sheet, draw_groups, photo_tensor
from dora_diffusion.evaluation.eye_facts import blind_to, gate_of
from dora_diffusion.evaluation.figures import FIGURES, Grid, difference, figures, per_subject, refusal
from dora_diffusion.evaluation.measure import Measured, measure
from dora_diffusion.evaluation.prompts import PROMPT_SCENES, plan
from dora_diffusion.formats import write_bytes
from dora_diffusion.inference import Drawing, MergedPipeline
from dora_diffusion.inference.draw import pictures_of
from dora_diffusion.models import base_digest, load_base
from dora_diffusion.toybox.captions import describe
from dora_diffusion.toybox.draws import Instances, Split, Views, draw_instances, draw_views
from dora_diffusion.toybox.eye import DEFAULT_FOLDER, WEIGHTS_FILE, load_eye
from dora_diffusion.toybox.render import render
from dora_diffusion.toybox.words import CLASSES, REFERENCE_SCENES
from dora_diffusion.training import train

PHOTO_SIDE = 256
SPLITS = {"test": Split.TEST, "final": Split.FINAL}
SUBJECT_FILE, PHOTOS, MASKS, HELD_OUT, IDENTITY = "subject.json", "photos", "masks", "held_out", "settings.json"
# The flags that all results of one folder must share.
SHAPING = (
    *("split", "subject_seed", "classes", "num_held_out", "num_images", "num_drift_images"),
    *("num_inference_steps", "guidance_scale", "sampler"),
)
PICTURE_SEEDS = 10_000  # between the picture seeds of two training seeds
SHOWN = (
    *("likeness", "worded_likeness", "gain_over_words", "leakage", "scene", "kind", "kind_against_base", "style"),
    *("other_kind_against_base", "other_scene_against_base"),
)


@dataclass(frozen=True)
class Job:
    """One training run: a subject's folder, its settings, a training seed, and how its pictures are drawn.

    ``kind``: what is compared, a kind of adapter or a name of the options; ``settings``: as ``settings_of`` gives them.
    """

    folder: Path
    settings: TrainConfig
    kind: str
    seed: int
    num_images: int
    num_drift_images: int
    drawing: Drawing
    cpu: bool
    threads: int
    keep: bool

    @property
    def result(self) -> Path:
        return self.folder / f"{self.kind}-{self.seed}.json"


def main(arguments: list[str] | None = None) -> int:
    """Render, train, measure, and print the tables."""
    given = _arguments(arguments)
    try:
        settings = settings_of(given)
        check_identity(given, settings)
        folders = render_subjects(given)
        jobs = [
            _job(folder, kind, config, seed, given)
            for seed in given.seeds
            for kind, config in settings.items()
            for folder in folders
        ]
        run_jobs([job for job in jobs if not job.result.is_file()], given.workers)
        report = make_report(folders, list(settings), given.seeds)
    except DoraError as error:
        print(f"bench_likeness: {error}", file=sys.stderr)
        return 2
    report["settings"] = {name: str(value) for name, value in vars(given).items()}
    text = markdown(report)
    write_bytes(given.output_dir / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    write_bytes(given.output_dir / "report.md", text.encode())
    print(text)
    return 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("samples/teapot.yaml"), help="settings of the training")
    parser.add_argument("--output_dir", type=Path, default=Path("bench_likeness"))
    parser.add_argument("--split", choices=[*SPLITS], default="test", help="final: for published figures only")
    parser.add_argument("--subjects", type=int, default=12)
    parser.add_argument("--subject_seed", type=int, default=0)
    parser.add_argument("--classes", nargs="+", choices=CLASSES, help="of the subjects; default: as many as there are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="training seeds")
    parser.add_argument("--kinds", nargs="+", default=["dora"], help="kinds of adapters")
    parser.add_argument("--options", type=Path, help="compare these instead: a YAML file, name: what it changes")
    parser.add_argument("--num_held_out", type=int, default=24)
    parser.add_argument("--num_images", type=int, default=3, help="pictures a scene")
    parser.add_argument("--num_drift_images", type=int, default=2, help="pictures of every other class")
    parser.add_argument("--num_inference_steps", type=int, default=25)
    parser.add_argument("--guidance_scale", type=float, default=usual_guidance(BASE))
    parser.add_argument("--sampler", default="model")
    parser.add_argument("--sample_batch_size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="runs at once, on one GPU or on the CPU")
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0: torch's own choice")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--keep_runs", action="store_true", help="keep the adapters and their checkpoints")
    return parser.parse_args(arguments)


def _device(cpu: bool) -> str:
    return "cuda" if torch.cuda.is_available() and not cpu else "cpu"


def settings_of(given: argparse.Namespace) -> dict[str, TrainConfig]:
    """What is compared, by name: the config with each kind of adapter, or with each of the options laid over it.

    Raises:
        ConfigError: a file cannot be read, or a setting is unknown.
    """
    config = read_yaml(given.config)
    if given.options is None:
        changes = {kind: {"adapter": {"kind": kind}} for kind in given.kinds}
    else:
        changes = {str(name): change or {} for name, change in read_yaml(given.options).items()}
    where = given.options or given.config
    return {name: build(TrainConfig, lay_over(config, change), f"{where}: {name}") for name, change in changes.items()}


def check_identity(given: argparse.Namespace, settings: dict[str, TrainConfig]) -> None:
    """Keep results apart that must not be averaged: other settings, another base, another eye.

    Raises:
        ConfigError: the folder holds such results.
    """
    eye = (DEFAULT_FOLDER / WEIGHTS_FILE).read_bytes() if (DEFAULT_FOLDER / WEIGHTS_FILE).is_file() else b""
    wanted = {name: getattr(given, name) for name in SHAPING} | {
        **{f"settings of {name}": _shown(config) for name, config in settings.items()},
        "base": base_digest(load_base(BASE)),
        "eye": hashlib.blake2b(eye, digest_size=8).hexdigest(),
    }
    path = given.output_dir / IDENTITY
    before = _read(path) if path.is_file() else {}
    changed = [name for name in wanted if before.get(name, wanted[name]) != wanted[name]]
    if changed:
        raise ConfigError(
            f"{given.output_dir} holds results of another {' and another '.join(changed)}; give another --output_dir."
        )
    write_bytes(path, json.dumps(before | wanted, indent=2).encode())


def _shown(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"run": {"output_dir"}})


def render_subjects(given: argparse.Namespace) -> list[Path]:
    """A folder for each subject, with its photos and ``subject.json``; what is there already is left as it is."""
    folders = []
    order = torch.randperm(len(CLASSES), generator=torch.Generator().manual_seed(given.subject_seed)).tolist()
    names = given.classes or [CLASSES[k] for k in order]
    for number in range(given.subjects):
        name = names[number % len(names)]
        folder = given.output_dir / f"{number:02d}-{name.replace(' ', '-')}"
        if not (folder / SUBJECT_FILE).is_file():
            seed = given.subject_seed * 1000 + number
            toy = draw_instances(1, seed, SPLITS[given.split], [name])
            render_photos(toy, REFERENCE_SCENES, seed, folder / PHOTOS, _device(given.cpu), folder / MASKS)
            scenes = [PROMPT_SCENES[k % len(PROMPT_SCENES)] for k in range(given.num_held_out)]
            render_photos(toy, scenes, seed + 500, folder / HELD_OUT, _device(given.cpu))
            facts = {"kind": name, "description": describe(toy, 0), "seed": seed, "split": given.split}
            write_bytes(folder / SUBJECT_FILE, json.dumps(facts, indent=2).encode())
        folders.append(folder)
    return folders


def render_photos(
    toy: Instances, scenes: Sequence[str], seed: int, folder: Path, device: str, masks: Path | None = None
) -> None:
    """One photo of the toy in each of ``scenes``, from a view of its own; where the toy is goes into ``masks``."""
    views = [draw_views(toy, seed * 100 + k, scenes=[scene], styles=["photo"]) for k, scene in enumerate(scenes)]
    toys = Instances.cat([toy] * len(scenes))
    rendered = render(toys, Views.cat(views), PHOTO_SIDE, device=device)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:02d}_{scene}" for number, scene in enumerate(scenes)]
    for name, picture in zip(names, pictures_of(rendered.images), strict=True):
        picture.save(folder / f"{name}.jpg", quality=95, subsampling=0)
    if masks is not None:
        masks.mkdir(parents=True, exist_ok=True)
        for name, mask in zip(names, pictures_of(rendered.masks.expand(-1, 3, -1, -1)), strict=True):
            mask.convert("L").save(masks / f"{name}.png")


def _job(folder: Path, kind: str, settings: TrainConfig, seed: int, given: argparse.Namespace) -> Job:
    drawing = Drawing(
        num_inference_steps=given.num_inference_steps,
        guidance_scale=given.guidance_scale,
        sampler=given.sampler,
        sample_batch_size=given.sample_batch_size,
    )
    counts = (given.num_images, given.num_drift_images)
    return Job(folder, settings, kind, seed, *counts, drawing, given.cpu, given.threads, given.keep_runs)


def run_jobs(jobs: list[Job], workers: int) -> None:
    """Do what is left to do, ``workers`` at a time; one line a run on stderr."""
    began = time.perf_counter()
    if workers <= 1:
        for number, job in enumerate(jobs, 1):
            run_job(job)
            _tell(number, len(jobs), began, job)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_job, job): job for job in jobs}
        for number, done in enumerate(as_completed(waiting), 1):
            if done.exception() is not None:
                pool.shutdown(cancel_futures=True)  # runs that have begun are finished and kept
            done.result()
            _tell(number, len(jobs), began, waiting[done])


def _tell(number: int, total: int, began: float, job: Job) -> None:
    print(f"{number}/{total} {job.result} after {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def run_job(job: Job) -> None:
    """Train, draw, measure, and write the result last: a file that is there is a run that is done."""
    if job.threads:
        torch.set_num_threads(job.threads)
    facts = json.loads((job.folder / SUBJECT_FILE).read_text(encoding="utf-8"))
    config = training_of(job, facts["kind"])
    began = time.perf_counter()
    train(config)
    seconds = time.perf_counter() - began
    pipeline = MergedPipeline(BASE, device="cpu" if job.cpu else None)
    side = pipeline.base.native_resolution
    photos, held_out = (photo_tensor(list_photos(job.folder / name), side) for name in (PHOTOS, HELD_OUT))
    asked = plan(
        f"{config.data.trigger} {facts['kind']}",
        facts["kind"],
        facts["description"],
        num_images=job.num_images,
        num_drift_images=job.num_drift_images,
        seed=job.seed * PICTURE_SEEDS,
    )
    drawn = draw_groups(pipeline, config.run.output_dir, asked, job.drawing)
    measured = measure(drawn, asked, photos, held_out, load_eye(device=pipeline.base.device), gate_of())
    page = contact_sheet(drawn, photos, asked, f"{facts['description']}, {job.kind}, seed {job.seed}")
    page.save(job.result.with_suffix(".jpg"), quality=90)
    result = {"kind": job.kind, "seed": job.seed, "train_seconds": round(seconds, 1), "measured": measured.to_json()}
    write_bytes(job.result, json.dumps(result).encode())
    if not job.keep:
        shutil.rmtree(config.run.output_dir)


def training_of(job: Job, noun: str) -> TrainConfig:
    """The job's settings for this subject and seed; nothing is drawn on the way."""
    preset = job.settings
    photos = {"instance_data_dir": job.folder / PHOTOS, "class_noun": noun, "instance_prompt": None}
    if preset.data.mask_data_dir is not None:
        photos["mask_data_dir"] = job.folder / MASKS
    data = preset.data.model_copy(update=photos)
    run = preset.run.model_copy(
        update={
            "output_dir": job.folder / f"{job.kind}-{job.seed}",
            "seed": job.seed,
            "cpu": job.cpu,
            "validation_prompt": [],
            "checkpointing_steps": 0,
        }
    )
    model = preset.model.model_copy(update={"pretrained_model_name_or_path": BASE})
    return preset.model_copy(update={"model": model, "data": data, "run": run})


def make_report(folders: list[Path], kinds: list[str], seeds: list[int]) -> dict[str, Any]:
    """Everything that the results come to."""
    gate = gate_of()
    grids: dict[str, Grid] = {}
    report: dict[str, Any] = {"gate": gate, "blind_to": blind_to(), "kinds": {}, "differences": {}}
    for kind in kinds:
        results = [[_read(folder / f"{kind}-{seed}.json") for seed in seeds] for folder in folders]
        grids[kind] = grid = [[Measured.from_json(result["measured"]) for result in row] for row in results]
        repeated = [repeats(run.copies, run.groups["subject"].scene_right) for row in grid for run in row]
        seconds = [result["train_seconds"] for row in results for result in row]
        report["kinds"][kind] = {
            "figures": {name: asdict(found) for name, found in figures(grid, gate).items()},
            "subjects": [_subject_row(folder, grid[k], gate) for k, folder in enumerate(folders)],
            "train_seconds": sum(seconds) / len(seconds),
            "near_copies": sum(copies for copies, _ in repeated),
            "repeated_poses": sum(poses for _, poses in repeated),
            "pictures": sum(len(run.copies) for row in grid for run in row),
        }
    first = kinds[0]
    for other in kinds[1:]:
        found = {name: difference(grids[first], grids[other], name, gate) for name in FIGURES}
        report["differences"][f"{first} - {other}"] = {name: asdict(value) for name, value in found.items() if value}
    return report


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _subject_row(folder: Path, runs: Sequence[Measured], gate: float) -> dict[str, Any]:
    values = {name: per_subject([runs], name, gate)[0] for name in SHOWN}
    refused = next((sentence for run in runs if (sentence := refusal(run))), None)
    nearest = max(score for run in runs for score in run.copies)
    return {"subject": folder.name, **values, "nearest_copy": nearest, "refusal": refused}


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    lines: list[str] = []
    for kind, part in report["kinds"].items():
        lines += [f"## {kind}", "", "| figure | value | 95 % interval | worst subject |", "|---|---|---|---|"]
        for name, found in part["figures"].items():
            values = [row[name] for row in part["subjects"] if row.get(name) is not None]
            worst = f"{(max if name == 'leakage' else min)(values):.3f}" if values else ""
            lines.append(_row(FIGURES[name].label, found, worst))
        lines += [
            "",
            f"Near-copies: {part['near_copies']} of {part['pictures']}; a photo's pose in the scene asked for: "
            f"{part['repeated_poses']}. Training: {part['train_seconds']:.0f} s a run.",
        ]
        lines += ["", f"| subject | {' | '.join(SHOWN)} | nearest copy |", "|---" * (len(SHOWN) + 2) + "|"]
        for row in part["subjects"]:
            cells = ["none" if row[name] is None else f"{row[name]:.3f}" for name in SHOWN]
            lines.append(f"| {row['subject']} | {' | '.join(cells)} | {row['nearest_copy']:.2f} |")
        refused = [f"{row['subject']}: {row['refusal']}" for row in part["subjects"] if row["refusal"]]
        lines += ["", *refused, ""]
    for pair, found in report["differences"].items():
        lines += [f"## {pair}", "", "| figure | difference | 95 % interval | |", "|---|---|---|---|"]
        lines += [*(_row(FIGURES[name].label, value, "") for name, value in found.items()), ""]
    if report["blind_to"]:
        lines += ["What the eye is blind to:", "", *(f"- {sentence}" for sentence in report["blind_to"])]
    return "\n".join(lines)


def _row(label: str, found: dict[str, float], last: str) -> str:
    return f"| {label} | {found['value']:.3f} | {found['low']:.3f} to {found['high']:.3f} | {last} |"


if __name__ == "__main__":
    sys.exit(main())
