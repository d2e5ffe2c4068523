"""The eye's tests: without them its numbers mean nothing. Held-out toys only.

Every figure comes with a bootstrap interval; what falls short, and what a picture can fool the eye with, is said in
plain sentences under ``blind``.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.errors import ConfigError
from dora_diffusion.toybox.draws import TWINS, Instances, Split, Views, draw_instances, draw_views, twins
from dora_diffusion.toybox.eye import NOTHING, Eye, Seen
from dora_diffusion.toybox.recipe.eye_bench import (
    OTHER_SCENES,
    AcceptanceSizes,
    Bench,
    in_scenes,
    repeated,
)
from dora_diffusion.toybox.recipe.eye_figures import Figure, auc_figure, mean_figure, plain, recall_at_1
from dora_diffusion.toybox.recipe.eye_pool import RoundTrip
from dora_diffusion.toybox.recipe.eye_probes import probe_figures
from dora_diffusion.toybox.words import CLASSES, COLORS, REFERENCE_SCENES, SCENES, STYLES

BARS = {"class": 0.99, "scene": 0.99, "color": 0.97, "style": 0.99, "recall@1": 0.95, "twins": 0.90}
GATE_SHARE = 0.01  # of real photos that may lie beyond the two ends between which the gate on the class stands
GATE_FLOOR = 0.1  # below it a gate would let noise through
REPORT = "eye_acceptance"


def accept_eye(
    eye: Eye,
    round_trip: RoundTrip | None,
    seed: int,
    split: Split,
    device: str,
    size_settings: AcceptanceSizes,
    final: bool = False,
) -> dict[str, Any]:
    """All tests of an eye, as a dictionary that JSON can hold: ``heads``, ``gate``, ``recall``, ``twins``, ``probes``,
    ``missed`` (the bars it does not reach) and ``blind``.

    Args:
        round_trip: the base's autoencoder on pictures in 0 to 1; None leaves those rows out.
        split: ``TEST``; ``FINAL`` only for the published figures, and then ``final`` says so.

    Raises:
        ConfigError: the split is not one to test on.
    """
    if split == Split.TRAIN or (split == Split.FINAL and not final):
        raise ConfigError(
            f"The eye is tested on the split TEST, not {split.name}: TRAIN is what it learned, and FINAL is looked at "
            "once, for the published figures, which final=True says."
        )
    bench = Bench(eye.to(device).eval(), round_trip, split, seed, device, size_settings)
    heads, gate = head_figures(bench)
    found = recall_figures(bench)
    compared = twin_figures(bench)
    probes = probe_figures(bench, gate["threshold"])
    figures: dict[str, Any] = {"heads": heads, "gate": gate, "recall": found, "twins": compared, "probes": probes}
    about = {"split": split.name.lower(), "seed": seed, "sizes": size_settings.model_dump()}
    return plain(about | figures | {"missed": _missed(figures), "blind": _blind(figures)})


def quick_figures(eye: Eye, device: str, toys: int, size: int, supersample: int) -> dict[str, float]:
    """The main figures on few held-out toys of the split TEST, without intervals: how a training run goes."""
    few = {"photos": 4 * toys, "styled": 2 * toys, "twins": toys, "resamplings": 1}
    sizes = AcceptanceSizes(**few, size=size, supersample=supersample)
    bench = Bench(eye, None, Split.TEST, 0, device, sizes)
    heads, _ = head_figures(bench)
    figures = {name: heads[name] for name in ("class", "scene", "color", "style")}
    figures |= {f"auc_{what}": found["references"] for what, found in twin_figures(bench).items()}
    return {name: round(figure.value, 4) for name, figure in figures.items()}


def head_figures(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """Accuracies of the heads, and the gate on the class calibrated on the photos."""
    seed, sizes = bench.seed, bench.sizes
    toys = draw_instances(sizes.photos, seed + 1, bench.split)
    views = draw_views(toys, seed + 2, styles=["photo"])
    truth = {"class": toys.kind, "scene": views.scene, "color": toys.colors[:, 0]}
    seen = bench.look(toys, views)
    figures: dict[str, Any] = {name: _accuracy(bench, seen, name, label) for name, label in truth.items()}
    if bench.round_trip is not None:
        decoded = bench.look(toys, views, through=True)
        figures |= {f"{k} (autoencoder)": _accuracy(bench, decoded, k, label) for k, label in truth.items()}
    styled = draw_instances(sizes.styled, seed + 3, bench.split)
    styled_views = draw_views(styled, seed + 4, styles=list(STYLES))
    in_styles = bench.look(styled, styled_views)
    figures["style"] = _accuracy(bench, in_styles, "style", styled_views.style)
    figures["class (all styles)"] = _accuracy(bench, in_styles, "class", styled.kind)
    figures["scene (all styles)"] = _accuracy(bench, in_styles, "scene", styled_views.scene)
    figures["worst"] = {name: _worst(seen, name, label) for name, label in truth.items()}
    figures["worst"]["style"] = _worst(in_styles, "style", styled_views.style)
    return figures, _gate(bench, seen, toys.kind)


def _accuracy(bench: Bench, seen: Seen, head: str, truth: Tensor) -> Figure:
    right = _logits(seen, head).argmax(1) == truth
    return mean_figure(right, bench.seed, bench.sizes.resamplings)


def _logits(seen: Seen, head: str) -> Tensor:
    return {
        "class": seen.class_logits,
        "scene": seen.scene_logits,
        "style": seen.style_logits,
        "color": seen.color_logits,
    }[head]


def _worst(seen: Seen, head: str, truth: Tensor) -> dict[str, float]:
    """The three labels that are recognised least, and how often."""
    names = {"class": CLASSES, "scene": tuple(SCENES), "style": tuple(STYLES), "color": COLORS}[head]
    right = (_logits(seen, head).argmax(1) == truth).double()
    shares = {name: float(right[truth == i].mean()) for i, name in enumerate(names) if bool((truth == i).any())}
    return dict(sorted(shares.items(), key=lambda item: item[1])[:3])


def _gate(bench: Bench, seen: Seen, kind: Tensor) -> dict[str, Any]:
    """Halfway between the probability of their own class that all but ``GATE_SHARE`` of real photos reach and that of
    the likeliest other class that all but as many stay under; ``GATE_FLOOR`` at least.

    A gate at the first of the two would turn pictures away whose class is beyond doubt: the head, trained on smoothed
    labels, is as good as never surer than 0.99, and a little softness costs it more than another toy could.
    """
    chance = seen.class_logits.softmax(1)
    own = kind[:, None]
    right, other = chance.gather(1, own)[:, 0].double(), chance.scatter(1, own, 0).amax(1).double()
    low, high = float(other.quantile(1 - GATE_SHARE)), float(right.quantile(GATE_SHARE))
    threshold = max(GATE_FLOOR, (low + high) / 2)
    times, nothing = bench.sizes.resamplings, chance.argmax(1) == NOTHING
    return {
        "threshold": threshold,
        "own class reaches": high,
        "other classes reach": low,
        "real rejected": mean_figure(right < threshold, bench.seed, times),
        "real taken for another class": mean_figure(other >= threshold, bench.seed, times),
        "real called nothing": mean_figure(nothing, bench.seed, times),
    }


def recall_figures(bench: Bench) -> dict[str, Any]:
    """One photo finds the other photo of its toy, in another scene, among ``gallery`` toys of the class."""
    hits: dict[str, list[Tensor]] = {"recall@1": [], "recall@1 (autoencoder)": []}
    for number, name in enumerate(CLASSES[: bench.sizes.classes]):
        seed = bench.seed + 10_000 + 10 * number
        toys = draw_instances(bench.sizes.gallery, seed, bench.split, [name])
        known = bench.look(toys, draw_views(toys, seed + 1, scenes=REFERENCE_SCENES, styles=["photo"])).embedding
        views = draw_views(toys, seed + 2, scenes=OTHER_SCENES, styles=["photo"])
        hits["recall@1"].append(recall_at_1(bench.look(toys, views).embedding, known))
        if bench.round_trip is not None:
            decoded = bench.look(toys, views, through=True).embedding
            hits["recall@1 (autoencoder)"].append(recall_at_1(decoded, known))
    times = bench.sizes.resamplings
    figures: dict[str, Any] = {k: mean_figure(torch.cat(v), bench.seed, times) for k, v in hits.items() if v}
    shares = {name: float(hit.mean()) for name, hit in zip(CLASSES, hits["recall@1"], strict=False)}
    return figures | {"by class": shares}


def twin_figures(bench: Bench) -> dict[str, dict[str, Figure]]:
    """How well a toy is told from a twin that differs in one thing only, for each of ``TWINS``.

    ``references``: the AUC of the mean cosine to five photos of the toy, of a sixth photo of it against the twin's in
    the same camera and scene; ``another scene``: the twin seen elsewhere; ``single``: one reference instead of five;
    ``paired``: how often the toy scores above its own twin; ``autoencoder``: the compared photos through it.
    """
    seed, times = bench.seed + 20, bench.sizes.resamplings
    toys = draw_instances(bench.sizes.twins, seed, bench.split)
    five = repeated(toys, len(REFERENCE_SCENES))
    at_home = in_scenes(draw_views(five, seed + 1, styles=["photo"]), REFERENCE_SCENES)
    references = bench.look(five, at_home).embedding.unflatten(0, (len(toys), -1))
    views, elsewhere = (draw_views(toys, seed + k, scenes=OTHER_SCENES, styles=["photo"]) for k in (2, 3))

    def cosines(of: Instances, seen_as: Views, through: bool = False) -> Tensor:
        """``(toys, references)``."""
        return (references @ bench.look(of, seen_as, through).embedding[:, :, None])[..., 0]

    own = cosines(toys, views)
    own_decoded = cosines(toys, views, through=True) if bench.round_trip is not None else None
    figures = {}
    for what in TWINS:
        twin = twins(toys, what, seed + 4)
        other = cosines(twin, views)
        pairs = {
            "references": (own.mean(1), other.mean(1)),
            "another scene": (own.mean(1), cosines(twin, elsewhere).mean(1)),
            "single": (own[:, 0], other[:, 0]),
        }
        if own_decoded is not None:
            pairs["autoencoder"] = (own_decoded.mean(1), cosines(twin, views, through=True).mean(1))
        figures[what] = {name: auc_figure(*pair, seed, times) for name, pair in pairs.items()}
        figures[what]["paired"] = mean_figure(own.mean(1) > other.mean(1), seed, times)
    return figures


def _missed(figures: dict[str, Any]) -> list[str]:
    """The bars that are not reached."""
    values = {name: figures["heads"][name] for name in ("class", "scene", "color", "style")}
    values["recall@1"] = figures["recall"]["recall@1"]
    missed = [f"{k} {v}, the bar is {BARS[k]}" for k, v in values.items() if v.value < BARS[k]]
    return missed + [
        f"a twin that differs in {what}: AUC {found['references']}, the bar is {BARS['twins']}"
        for what, found in figures["twins"].items()
        if found["references"].value < BARS["twins"]
    ]


def _blind(figures: dict[str, Any]) -> list[str]:
    """What the eye does not see, or takes for the toy."""
    said = []
    for what, found in figures["twins"].items():
        low = {k: v for k, v in found.items() if k != "paired" and v.value < BARS["twins"]}
        said += [f"a twin that differs in {what} ({kind}): AUC {value}" for kind, value in low.items()]
    for name, found in figures["probes"].items():
        gated = found["gated"]
        if "at_most" in found and gated.value > found["at_most"]:
            said.append(f"{name}: likeness {gated}, should be at most {found['at_most']}")
        if "at_least" in found and gated.value < found["at_least"]:
            said.append(f"{name}: likeness {gated}, should be at least {found['at_least']}")
    for name in ("copy of a reference", "reference toy pasted on the scene"):
        gated = figures["probes"][name]["gated"]
        said.append(f"{name}: likeness {gated}; only the near-copy check can tell it from a new picture")
    return said


def table(figures: dict[str, Any]) -> str:
    """The result of ``accept_eye`` as Markdown."""
    heads = [(k, v, BARS.get(k)) for k, v in figures["heads"].items() if k != "worst"]
    found = [(k, v, BARS.get(k)) for k, v in figures["recall"].items() if k != "by class"]
    lines = ["| what | figure | bar |", "|---|---|---|"]
    lines += [f"| {name} | {_cell(value)} | {'' if bar is None else bar} |" for name, value, bar in heads + found]
    for what, kinds in figures["twins"].items():
        bar = BARS["twins"]
        rows = [
            (f"AUC, twin that differs in {what}, {k}", v, bar if k == "references" else "") for k, v in kinds.items()
        ]
        lines += [f"| {name} | {_cell(value)} | {bar} |" for name, value, bar in rows]
    lines += ["", "| probe | likeness | gated | accepted | gated should be |", "|---|---|---|---|---|"]
    for name, probe in figures["probes"].items():
        limits = [f"{sign} {probe[k]}" for k, sign in (("at_least", "≥"), ("at_most", "≤")) if k in probe]
        cells = [_cell(probe["likeness"]), _cell(probe["gated"]), f"{probe['accepted']['value']:.2f}", *limits[:1]]
        lines.append(f"| {name} | {' | '.join(cells)} |" if limits else f"| {name} | {' | '.join(cells)} | |")
    lines += ["", "Blind to:", "", *(f"- {sentence}" for sentence in figures["blind"])]
    return "\n".join(lines) + "\n"


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def write_report(figures: dict[str, Any], folder: Path) -> None:
    """The result of ``accept_eye`` as ``eye_acceptance.json`` and ``eye_acceptance.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{REPORT}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (folder / f"{REPORT}.md").write_text(table(figures), encoding="utf-8")
