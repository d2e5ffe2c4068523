"""``evaluate(config)``: draw with the base and with the adapter, look, and say in figures what was learned."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dora_diffusion.config import EvaluateConfig
from dora_diffusion.data.photos import open_photo
from dora_diffusion.evaluation.eye_facts import blind_to, gate_of, is_accepted
from dora_diffusion.evaluation.figures import figures, refusal
from dora_diffusion.evaluation.likeness import likeness
from dora_diffusion.evaluation.measure import GROUPS, HELD_OUT, Measured, measure
from dora_diffusion.evaluation.prompts import Plan, plan, prompt_scenes
from dora_diffusion.evaluation.report import CENTRAL, Evaluation, Picture
from dora_diffusion.evaluation.taught import Taught, taught
from dora_diffusion.formats import write_bytes
from dora_diffusion.inference import Drawing, MergedPipeline, draw_tensor
from dora_diffusion.inference.draw import guidance_of, pictures_of
from dora_diffusion.inference.out_of_memory import memory_told
from dora_diffusion.inference.sheet import Row, save_sheet, sheet
from dora_diffusion.machine import check_writable
from dora_diffusion.toybox.eye import Seen, load_eye
from dora_diffusion.toybox.words import COLORS, SCENES

REPORT, SHEET = "report.json", "sheet.png"
BASE = "toybox"

OnProgress = Callable[[int, int], None]
OnGroup = Callable[[str], None]

# What each group of pictures shows, and what it is drawn for.
_SHOWS = {
    "base_bare": "the class, without the adapter",
    "base_worded": "the subject in words alone, without the adapter",
    "base_others": "other classes, without the adapter",
    "subject": "the subject",
    "bare": "the class, to see what leaks into it",
    "styled": "the subject in other styles",
    "others": "other classes, to see what drifts",
}


def evaluate(
    config: EvaluateConfig, on_progress: OnProgress | None = None, on_group: OnGroup | None = None
) -> Evaluation:
    """Judge one adapter of the embedded base; writes ``report.json`` and ``sheet.png`` where ``output_dir`` is given.

    Args:
        on_progress: called with sampling steps done and in all.
        on_group: called with what is drawn next, in words.

    Raises:
        DoraError: adapter, photos, base, eye or folder are not fit; the message says what to do.
    """
    subject = taught(config)
    if config.output_dir is not None:
        check_writable(config.output_dir, 0)
    eye = load_eye()
    pipeline = MergedPipeline(BASE, device="cpu" if config.cpu else None)
    eye.to(pipeline.base.device)
    side = pipeline.base.native_resolution
    photos = photo_tensor(subject.photos, side)
    held_out = photo_tensor(subject.held_out, side) if subject.held_out else None
    seen = eye.see(photos)
    description, description_of = _description(config, subject, seen)
    asked = plan(
        subject.words,
        subject.kind,
        description,
        num_images=config.num_images,
        num_drift_images=config.num_drift_images,
        seed=config.seed,
        scenes=prompt_scenes(_scenes(seen)),
    )
    with memory_told("drawing", _lighter_drawing(config)):
        drawn = draw_groups(
            pipeline, subject.adapter, asked, drawing_of(config), config.strength, on_progress, on_group
        )
    gate = gate_of()
    measured = measure(drawn, asked, photos, held_out, eye, gate)
    evaluation = replace(
        summarise(measured, asked, gate),
        adapter=str(subject.adapter),
        subject=subject.words,
        description=description,
        description_of=description_of,
        blind_to=blind_to(),
        notes=tuple(_notes(measured, asked)),
        settings=config.model_dump(mode="json") | {"guidance_scale": guidance_of(pipeline.base, config.guidance_scale)},
    )
    if config.output_dir is not None:
        write_bytes(config.output_dir / REPORT, (json.dumps(evaluation.to_json(), indent=2) + "\n").encode())
        title = f"{evaluation.subject}, {evaluation.adapter}"
        save_sheet(contact_sheet(drawn, photos, asked, title), config.output_dir / SHEET)
    return evaluation


def draw_groups(
    pipeline: MergedPipeline,
    adapter: Path,
    asked: Plan,
    drawing: Drawing,
    strength: float = 1.0,
    on_progress: OnProgress | None = None,
    on_group: OnGroup | None = None,
) -> dict[str, Tensor]:
    """Every group of ``measure.GROUPS`` that ``asked`` has pictures for: (n, 3, h, w) in [0, 1], on the CPU."""
    total = drawing.num_inference_steps * sum(len(getattr(asked, name)) for name, _ in GROUPS.values())
    drawn: dict[str, Tensor] = {}
    before = 0
    for group, (name, adapted) in GROUPS.items():
        asks = getattr(asked, name)
        if not asks:
            continue
        if on_group is not None:
            on_group(f"{len(asks)} pictures of {_SHOWS[group]}: {asks[0].prompt!r}{' ...' if len(asks) > 1 else ''}")
        pipeline.switch(adapter if adapted else None, strength)
        turn = _counting_from(before, total, on_progress)
        drawn[group] = draw_tensor(
            pipeline.base, [ask.prompt for ask in asks], [ask.seed for ask in asks], drawing, turn
        ).cpu()
        before += len(asks) * drawing.num_inference_steps
    return drawn


def summarise(measured: Measured, asked: Plan, gate: float) -> Evaluation:
    """The figures of one trained subject; whose it is stays empty."""
    group, base = measured.groups[CENTRAL], measured.groups["base_bare"]
    accepted = [probability >= gate for probability in group.probability]
    refused = refusal(measured)
    values: Sequence[float | None] = [None] * len(accepted)
    if refused is None:
        columns = (group.cosine, accepted, base.cosine, measured.ceiling)
        values = likeness(*(torch.tensor(column) for column in columns)).values.tolist()
    rows = zip(asked.subject, group.cosine, values, accepted, group.scene_right, measured.copies, strict=True)
    cosines = {name: float(np.mean(found.cosine)) for name, found in measured.groups.items()}
    return Evaluation(
        adapter="",
        subject="",
        kind=measured.kind,
        description="",
        description_of="",
        figures=figures([[measured]], gate),
        refusal=refused,
        cosines={**cosines, "ceiling": float(np.mean(measured.ceiling))},
        ceiling_of=measured.ceiling_of,
        gate=gate,
        pictures=tuple(Picture(ask.prompt, ask.seed, *row) for ask, *row in rows),
        blind_to=(),
        notes=(),
        settings={},
    )


def contact_sheet(drawn: Mapping[str, Tensor], photos: Tensor, asked: Plan, title: str) -> Image.Image:
    """Photos, then the first picture of every scene from each group that shows the subject or its class."""
    scenes = list(dict.fromkeys(ask.scene for ask in asked.bare))
    kind = asked.bare[0].kind
    names = {
        "base_bare": f"base: a {kind}",
        "base_worded": "base, described",
        "subject": "adapter",
        "bare": f"adapter: a {kind}",
    }
    rows = [Row("photos", pictures_of(photos[: len(scenes)]))]
    rows += [Row(label, pictures_of(drawn[name][: len(scenes)])) for name, label in names.items() if name in drawn]
    styled = list(zip(asked.styled, pictures_of(drawn["styled"]), strict=True)) if "styled" in drawn else []
    for style in dict.fromkeys(ask.style for ask, _ in styled):
        rows.append(Row(style, [picture for ask, picture in styled if ask.style == style][: len(scenes)]))
    return sheet(rows, scenes, title=title)


def photo_tensor(paths: Sequence[Path], side: int) -> Tensor:
    """The photos' middle squares, (n, 3, side, side) in [0, 1].

    Raises:
        PhotoError: one of them cannot be read.
    """
    squares = [ImageOps.fit(open_photo(path), (side, side), Image.Resampling.LANCZOS) for path in paths]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2).float() / 255


def drawing_of(config: EvaluateConfig) -> Drawing:
    """How the pictures of an evaluation are drawn."""
    return Drawing(
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        sampler=config.sampler,
        sample_batch_size=config.sample_batch_size,
    )


def _lighter_drawing(config: EvaluateConfig) -> Iterator[str]:
    if config.sample_batch_size > 1:
        yield f"a --sample_batch_size below {config.sample_batch_size} (the same pictures)"
    if not config.cpu and torch.cuda.is_available():
        yield "--cpu"


def _counting_from(before: int, total: int, on_progress: OnProgress | None) -> OnProgress | None:
    """Count the steps of one group as part of all groups'."""
    return None if on_progress is None else lambda done, _: on_progress(before + done, total)


def _description(config: EvaluateConfig, subject: Taught, seen: Seen) -> tuple[str, str]:
    """What the base is told for the second floor, and whose words these are."""
    if config.description:
        return config.description, "as given"
    colors = [COLORS[k] for k in seen.color_logits.argmax(1).tolist()]
    color = Counter(colors).most_common(1)[0][0]
    return f"{color} {subject.kind}", "its main colour as the eye sees it; --description may say more"


def _scenes(seen: Seen) -> set[str]:
    return {list(SCENES)[k] for k in seen.scene_logits.argmax(1).tolist()}


def _notes(measured: Measured, asked: Plan) -> list[str]:
    strange = measured.photos_accepted.count(False)
    notes = ["Intervals are over the pictures of this one run; they say nothing of other training seeds."]
    if strange:
        notes.append(
            f"The eye does not see a {measured.kind} in {strange} of the {len(measured.photos_accepted)} training "
            "photos, so its figures mean little here: it knows rendered toys, not real photographs."
        )
    if not is_accepted():
        notes.append("This eye was never tested: nobody knows what it is blind to, and its gate is a guess.")
    if measured.ceiling_of != HELD_OUT:
        notes.append("No photos were held out: the ceiling is how alike the training photos are among themselves.")
    scenes = {ask.scene for ask in asked.bare}
    return [*notes, f"Scenes asked for: {', '.join(sorted(scenes))}; the training photos show none of them."]
