"""Pictures made to fool the likeness: what does the eye's score react to that is not the toy?

Each probe is scored as the likeness is: ``(s - floor) / (ceiling - floor)``: s is the mean cosine to five photos of
the toy, the ceiling is the toy in other scenes, and the floor another toy of its class in the same views. The floor
stands in for an untrained base model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.toybox.draws import TWINS, Instances, Views, draw_instances, draw_views, twins
from dora_diffusion.toybox.recipe.eye_augment import blurred, without_toy
from dora_diffusion.toybox.recipe.eye_bench import OTHER_SCENES, Bench, in_scenes, repeated
from dora_diffusion.toybox.recipe.eye_figures import Figure, mean_figure
from dora_diffusion.toybox.render import Rendered
from dora_diffusion.toybox.words import CLASSES, REFERENCE_SCENES


@dataclass(frozen=True)
class Material:
    """Pictures of every subject, rows ordered by subject, then picture; so are ``references``."""

    subjects: Instances
    real: Rendered  # the toy in other scenes
    again: Rendered  # the same, in other views
    other: Rendered  # another toy of the class, in the views of ``real``
    references: Rendered  # the toy in a reference scene


@dataclass(frozen=True)
class Probe:
    """One way to make pictures, and where their likeness should lie (gated; None: reported only)."""

    name: str
    make: Callable[[Material], Tensor]
    at_least: float | None = None
    at_most: float | None = None


def probe_figures(bench: Bench, gate: float) -> dict[str, Any]:
    """The likeness of every probe: as it is, with rejected pictures counted 0, and the share of pictures accepted.

    Args:
        gate: the lowest probability of the right class at which a picture is accepted.
    """
    material, views, references = _material(bench)
    scores = _Scores(bench, material, references, gate)
    figures: dict[str, Any] = {probe.name: scores.of(probe.make(material)) | _bars(probe) for probe in PROBES}
    if bench.round_trip is not None:
        probe = Probe("real through the autoencoder", lambda m: m.real.images, at_least=0.9)
        figures[probe.name] = scores.of(material.real.images, through=True) | _bars(probe)
    for what in TWINS:
        twin = repeated(twins(material.subjects, what, bench.seed + 60), bench.sizes.pictures)
        figures[f"twin that differs in {what}"] = scores.of(bench.pictures(twin, views).images)
    return figures


class _Scores:
    """Normalised likeness against the references of each subject."""

    def __init__(self, bench: Bench, material: Material, references: Tensor, gate: float):
        self.bench, self.references, self.gate = bench, references, gate
        self.kind = material.subjects.kind
        self.ceiling, _ = self._raw(material.real.images, False)
        self.floor, _ = self._raw(material.other.images, False)

    def of(self, images: Tensor, through: bool = False) -> dict[str, Figure]:
        """Figures of a probe's pictures, resampled by subjects."""
        cosine, accepted = self._raw(images, through)
        floor, ceiling = self.floor.mean(1, keepdim=True), self.ceiling.mean(1, keepdim=True)
        # One subject's own span may be tiny; the mean span over subjects keeps it from ruling the mean.
        likeness = (cosine - floor) / (ceiling - floor).mean().clamp(min=1e-3)
        seed, times = self.bench.seed, self.bench.sizes.resamplings
        return {
            "cosine": mean_figure(cosine.mean(1), seed, times),
            "likeness": mean_figure(likeness.mean(1), seed, times),
            "gated": mean_figure((likeness * accepted).mean(1), seed, times),
            "accepted": mean_figure(accepted.double().mean(1), seed, times),
        }

    def _raw(self, images: Tensor, through: bool) -> tuple[Tensor, Tensor]:
        """``(subjects, pictures)``: mean cosine to the references; whether the class is recognised."""
        seen = self.bench.see(images, through)
        embedding = seen.embedding.unflatten(0, (len(self.kind), -1))
        cosine = (embedding @ self.references.transpose(1, 2)).mean(2)
        chance = seen.class_logits.softmax(1).unflatten(0, (len(self.kind), -1))
        right = chance.gather(2, self.kind[:, None, None].expand(-1, chance.shape[1], 1))[..., 0]
        return cosine, right >= self.gate


def _material(bench: Bench) -> tuple[Material, Views, Tensor]:
    """The pictures, the views of the real ones, and the references' embeddings ``(subjects, 5, d)``."""
    sizes, seed = bench.sizes, bench.seed + 40
    both = [
        draw_instances(2 * sizes.subjects, seed + i, bench.split, [name])
        for i, name in enumerate(CLASSES[: sizes.classes])
    ]
    subjects = Instances.cat([toys.take(slice(sizes.subjects)) for toys in both])
    others = Instances.cat([toys.take(slice(sizes.subjects, None)) for toys in both])
    many, scenes = repeated(subjects, sizes.pictures), OTHER_SCENES[: sizes.pictures]
    views, again = (in_scenes(draw_views(many, seed + k, styles=["photo"]), scenes) for k in (101, 102))
    five = repeated(subjects, len(REFERENCE_SCENES))
    at_home = in_scenes(draw_views(five, seed + 103, styles=["photo"]), REFERENCE_SCENES)
    references = bench.pictures(five, at_home)
    embedding = bench.see(references.images).embedding.unflatten(0, (len(subjects), -1))
    rows = torch.arange(len(many))
    chosen = rows // sizes.pictures * len(REFERENCE_SCENES) + rows % sizes.pictures % len(REFERENCE_SCENES)
    chosen = chosen.to(references.images.device)
    material = Material(
        subjects=subjects,
        real=bench.pictures(many, views),
        again=bench.pictures(many, again),
        other=bench.pictures(repeated(others, sizes.pictures), views),
        references=Rendered(references.images[chosen], references.masks[chosen]),
    )
    return material, views, embedding


def _bars(probe: Probe) -> dict[str, float]:
    bars = {"at_least": probe.at_least, "at_most": probe.at_most}
    return {name: bar for name, bar in bars.items() if bar is not None}


def saturated(images: Tensor, factor: float) -> Tensor:
    """Colours moved away from gray by ``factor``."""
    gray = images.mean(1, keepdim=True)
    return (gray + (images - gray) * factor).clamp(0, 1)


def pasted(toys: Rendered, backgrounds: Tensor) -> Tensor:
    """The toys cut out and laid on other pictures."""
    return toys.images * toys.masks + backgrounds * (1 - toys.masks)


def recolored(toys: Rendered, like: Rendered) -> Tensor:
    """The toys' pixels given the mean and deviation of another toy's, channel by channel."""
    mean, deviation = _moments(toys)
    wanted_mean, wanted_deviation = _moments(like)
    changed = (toys.images - mean) / (deviation + 1e-3) * wanted_deviation + wanted_mean
    return (changed * toys.masks + toys.images * (1 - toys.masks)).clamp(0, 1)


def _moments(toys: Rendered) -> tuple[Tensor, Tensor]:
    area = toys.masks.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (toys.images * toys.masks).sum((2, 3), keepdim=True) / area
    variance = ((toys.images - mean) ** 2 * toys.masks).sum((2, 3), keepdim=True) / area
    return mean, variance.sqrt()


def _outline(m: Material) -> Tensor:
    mean, _ = _moments(m.references)
    return pasted(Rendered(mean.expand_as(m.other.images), m.other.masks), m.other.images)


def _empty(toys: Rendered) -> Tensor:
    return without_toy(toys.images, toys.masks)


def _turned(images: Tensor) -> Tensor:
    """Every picture replaced by the next one's: another background for each."""
    return images.roll(1, 0)


def _noise(m: Material) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(m.real.images.shape, generator=generator).to(m.real.images.device)


def _softest(images: Tensor) -> Tensor:
    for _ in range(4):
        images = blurred(images)
    return images


PROBES = (
    Probe("real again, in other views", lambda m: m.again.images, at_least=0.9),
    Probe("real on another background", lambda m: pasted(m.real, _turned(_empty(m.real))), at_least=0.9),
    Probe("real, saturation 1.5", lambda m: saturated(m.real.images, 1.5), at_least=0.8),
    Probe("real, blurred", lambda m: _softest(m.real.images), at_least=0.8),
    Probe("copy of a reference", lambda m: m.references.images),
    Probe("reference toy pasted on the scene", lambda m: pasted(m.references, _empty(m.other))),
    Probe("other toy on a reference background", lambda m: pasted(m.other, _empty(m.references)), at_most=0.15),
    Probe("other toy, saturation 1.5", lambda m: saturated(m.other.images, 1.5), at_most=0.15),
    Probe("other toy, saturation 2", lambda m: saturated(m.other.images, 2.0), at_most=0.15),
    Probe("other toy, saturation 0.5", lambda m: saturated(m.other.images, 0.5), at_most=0.15),
    Probe("other toy, recolored like the references", lambda m: recolored(m.other, m.references), at_most=0.5),
    Probe("outline in the references' mean color", _outline, at_most=0.2),
    Probe("empty scene", lambda m: _empty(m.real), at_most=0.05),
    Probe("gray picture", lambda m: torch.full_like(m.real.images, 0.5), at_most=0.05),
    Probe("noise", _noise, at_most=0.05),
)
