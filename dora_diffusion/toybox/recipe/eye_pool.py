"""The pictures the eye learns from, rendered ahead onto the device: families of siblings and single toys.

A family is a toy and its twins, each of which differs from it in one thing only; the pictures of half of the families
share their camera and place, so that nothing but that thing tells the siblings apart.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Generator, Tensor

from dora_diffusion.config.fields import Settings, free
from dora_diffusion.toybox.draws import TWINS, Instances, Split, Views, draw_instances, draw_views, split_of, twins
from dora_diffusion.toybox.eye import SIZE
from dora_diffusion.toybox.recipe.loop import seeded
from dora_diffusion.toybox.recipe.pool import as_bytes
from dora_diffusion.toybox.recipe.processes import ALONE, Place
from dora_diffusion.toybox.render import Rendered, render
from dora_diffusion.toybox.words import CLASSES

Rows = TypeVar("Rows", Instances, Views)
RoundTrip = Callable[[Tensor], Tensor]  # pictures (n, 3, h, w) in 0 to 1, to the same through an autoencoder

MEMBERS = 1 + len(TWINS)
_TRIES = 8  # at finding a twin that training may see


class EyePoolSettings(Settings):
    """The pictures the eye learns from."""

    families: int = free(8_064, "families rendered ahead, six toys each", ge=1)
    views: int = free(3, "pictures of each toy of a family", ge=2)
    plain: int = free(60_480, "single toys rendered ahead, in all styles", ge=1)
    part: int = free(512, "families drawn from one seed and rendered together, with their share of single toys", ge=1)
    size: int = free(SIZE, "side of a picture in pixels", ge=32, multiple_of=32)
    supersample: int = free(2, "rays a pixel, along each side", ge=1)
    shared_views: float = free(0.5, "share of families whose siblings are seen in one camera and place", ge=0, le=1)
    fill_share: float = free(0.35, "of the minutes given, at most so much goes into filling the pool", gt=0, le=1)
    refresh_every: int = free(400, "steps between two renewals of the oldest part; 0: never", ge=0)


@dataclass(frozen=True)
class Labels:
    """The truth about ``n`` pictures, on the pool's device."""

    kind: Tensor
    scene: Tensor
    style: Tensor
    colors: Tensor  # (n, 3)
    pattern: Tensor
    emblem: Tensor
    odd: Tensor  # 0 or 1
    shape: Tensor  # (n, 8)

    def take(self, rows: Tensor) -> "Labels":
        """The labels of ``rows``."""
        return Labels(**{name: column[rows] for name, column in vars(self).items()})

    @staticmethod
    def of(instances: Instances, views: Views, device: str) -> "Labels":
        """The labels of ``instances`` seen as ``views``."""
        columns = {
            "kind": instances.kind,
            "scene": views.scene,
            "style": views.style,
            "colors": instances.colors,
            "pattern": instances.pattern,
            "emblem": instances.emblem,
            "odd": instances.odd.long(),
            "shape": instances.shape,
        }
        return Labels(**{name: column.to(device) for name, column in columns.items()})

    @staticmethod
    def cat(tables: list["Labels"]) -> "Labels":
        """All labels of ``tables``, in order."""
        return Labels(**{name: torch.cat([vars(table)[name] for table in tables]) for name in vars(tables[0])})


@dataclass(frozen=True)
class Batch:
    """``n`` pictures to learn from. ``toy (n,)`` says which show the same toy and ``family (n,)`` which show siblings;
    both are -1 for a single toy.
    """

    images: Tensor  # (n, 3, s, s) in 0 to 1
    masks: Tensor  # (n, 1, s, s) in 0 to 1
    labels: Labels
    toy: Tensor
    family: Tensor


class Store:
    """Pictures and masks in 8 bits, and their labels, on the device."""

    def __init__(self, count: int, size: int, device: str, with_copies: bool):
        def empty(channels: int) -> Tensor:
            return torch.zeros(count, channels, size, size, dtype=torch.uint8, device=device)

        self.images, self.masks = empty(3), empty(1)
        self.copies = empty(3) if with_copies else None  # the same pictures through the autoencoder
        self.labels: Labels | None = None

    def put(self, start: int, pictures: Rendered, copies: Tensor | None, labels: Labels) -> None:
        """Write rows from ``start`` on."""
        rows = slice(start, start + len(pictures.images))
        self.images[rows], self.masks[rows] = as_bytes(pictures.images), as_bytes(pictures.masks)
        if self.copies is not None and copies is not None:
            self.copies[rows] = as_bytes(copies)
        if self.labels is None:
            count, columns = len(self.images), vars(labels).items()
            self.labels = Labels(**{name: column.new_zeros(count, *column.shape[1:]) for name, column in columns})
        for name, column in vars(labels).items():
            vars(self.labels)[name][rows] = column

    def take(self, rows: Tensor, copied: Tensor) -> tuple[Tensor, Tensor, Labels]:
        """Pictures (through the autoencoder where ``copied``), masks and labels of ``rows``."""
        assert self.labels is not None, "a store is filled before it is read"
        images = self.images[rows]
        if self.copies is not None:
            images = torch.where(copied[:, None, None, None], self.copies[rows], images)
        return images.float() / 255, self.masks[rows].float() / 255, self.labels.take(rows)


class EyePool:
    """All pictures of one run, rendered part by part; renewals overwrite the oldest part. Part k is a function of
    (seed, k).

    Args:
        round_trip: the autoencoder, or None.
        first: the number of the first part.
        place: among several processes, each takes every ``place.count``-th part; ``number`` counts those of all.
    """

    def __init__(
        self,
        settings: EyePoolSettings,
        seed: int,
        device: str,
        round_trip: RoundTrip | None = None,
        first: int = 0,
        place: Place = ALONE,
    ):
        self.settings, self.device, self.number = settings, device, first
        self._place = place
        self._seed, self._round_trip = seed, round_trip
        self._next = {"families": 0, "plain": 0}
        self._ready = {"families": 0, "plain": 0}
        self._per_family = MEMBERS * settings.views
        self._parts = math.ceil(settings.families / settings.part)
        with_copies = round_trip is not None
        self.families = Store(settings.families * self._per_family, settings.size, device, with_copies)
        self.plain = Store(settings.plain, settings.size, device, with_copies)

    def fill(self, may_go_on: Callable[[], bool]) -> int:
        """Fill the pool, with one part at least; returns how many pictures it holds."""
        self.renew()
        for _ in range(self._parts - 1):
            if not may_go_on():
                break
            self.renew()
        return self._ready["families"] * self._per_family + self._ready["plain"]

    def renew(self) -> None:
        """Add the next part, in the place of the oldest once the pool is full."""
        settings, seed = self.settings, seeded(self._seed, self.number + self._place.rank)
        self.number += self._place.count
        start, count = self._advance("families", settings.families, settings.part)
        pictures = family_pictures(count, seed, settings.views, settings.shared_views)
        self._render(self.families, start * self._per_family, *pictures)
        start, count = self._advance("plain", settings.plain, math.ceil(settings.plain / self._parts))
        instances = draw_instances(count, seeded(seed, 1))
        self._render(self.plain, start, instances, draw_views(instances, seeded(seed, 2)))

    def renew_when_due(self, step: int) -> None:
        """Renew a part every ``refresh_every`` steps."""
        if self.settings.refresh_every and step % self.settings.refresh_every == 0:
            self.renew()

    def _advance(self, what: str, size: int, count: int) -> tuple[int, int]:
        """Where the next ``count`` go, and how many of them fit before the ring begins anew."""
        start = self._next[what]
        count = min(count, size - start)
        self._next[what] = (start + count) % size
        self._ready[what] = max(self._ready[what], start + count)
        return start, count

    def batch(self, families: int, plain: int, classes: int, copies: float, generator: Generator) -> Batch:
        """Two pictures of every toy of ``families`` families, most of them of ``classes`` classes, and ``plain`` single
        toys, each through the autoencoder with probability ``copies``.
        """
        views = self.settings.views
        chosen = self._choose(families, classes, generator)
        looks = torch.rand(families, views, generator=generator, device=self.device).argsort(1)[:, :2]
        members = torch.arange(MEMBERS, device=self.device)
        toys = chosen[:, None] * MEMBERS + members  # (families, MEMBERS)
        rows = (toys[:, :, None] * views + looks[:, None, :]).flatten()
        single = torch.randint(self._ready["plain"], (plain,), generator=generator, device=self.device)
        copied = torch.rand(len(rows) + plain, generator=generator, device=self.device) < copies
        parts = [self.families.take(rows, copied[: len(rows)]), self.plain.take(single, copied[len(rows) :])]
        none = torch.full_like(single, -1)
        toy = torch.cat([toys[:, :, None].expand(-1, -1, looks.shape[1]).flatten(), none])
        return Batch(
            images=torch.cat([part[0] for part in parts]),
            masks=torch.cat([part[1] for part in parts]),
            labels=Labels.cat([part[2] for part in parts]),
            toy=toy,
            family=torch.where(toy < 0, toy, toy // MEMBERS),
        )

    def _choose(self, families: int, classes: int, generator: Generator) -> Tensor:
        """Families of few classes, so that a toy's negatives are mostly of its own class."""
        assert self.families.labels is not None, "a pool is filled before it is read"
        kinds = self.families.labels.kind[:: self._per_family][: self._ready["families"]]
        few = torch.randperm(len(CLASSES), generator=generator, device=self.device)[:classes]
        weights = torch.isin(kinds, few).float() + 1e-3
        return torch.multinomial(weights, families, generator=generator)

    def _render(self, store: Store, start: int, instances: Instances, views: Views) -> None:
        rendered = render(instances, views, self.settings.size, self.settings.supersample, self.device)
        copies = self._round_trip(rendered.images) if self._round_trip else None
        store.put(start, rendered, copies, Labels.of(instances, views, self.device))


def family_pictures(count: int, seed: int, views: int, shared: float) -> tuple[Instances, Views]:
    """What to render for ``count`` families: rows ordered by family, then member (the toy itself first), then view."""
    base = draw_instances(count, seed)
    members = [base, *(_trained_twins(base, what, seeded(seed, 3, i)) for i, what in enumerate(TWINS))]
    generator = Generator().manual_seed(seed)
    together = torch.rand(count, generator=generator) < shared
    seen: list[Views] = []
    for view in range(views):
        common = draw_views(base, seeded(seed, 4, view), styles=["photo"])
        for number, member in enumerate(members):
            own = draw_views(member, seeded(seed, 5, view, number), styles=["photo"])
            seen.append(_either(together, common, own))
    order = torch.arange(views * MEMBERS * count).view(views, MEMBERS, count).permute(2, 1, 0).flatten()
    return Instances.cat(members * views).take(order), Views.cat(seen).take(order)


def _trained_twins(base: Instances, what: str, seed: int) -> Instances:
    """Twins that training may see: a changed colour or pattern can make a toy of a held-out set."""
    chosen = twins(base, "shape", seed)  # where all else fails: a change of shape stays in the split
    missing = torch.ones(len(base), dtype=torch.bool)
    for attempt in range(_TRIES):
        drawn = twins(base, what, seeded(seed, attempt))
        found = missing & (split_of(drawn) == Split.TRAIN)
        chosen = _either(found, drawn, chosen)
        missing &= ~found
    return chosen


def _either(first: Tensor, yes: Rows, no: Rows) -> Rows:
    """The rows of ``yes`` where ``first``, else those of ``no``."""
    other = no.columns()

    def pick(name: str, column: Tensor) -> Tensor:
        return torch.where(first.view(-1, *[1] * (column.ndim - 1)), column, other[name])

    return type(yes)(**{name: pick(name, column) for name, column in yes.columns().items()})
