"""Which toy, seen how: everything random about a picture, drawn on the CPU from a seed, so that a seed means the same
toys and views on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor

from dora_diffusion.errors import ConfigError
from dora_diffusion.toybox.emblems import EMBLEMS
from dora_diffusion.toybox.toys import TOYS
from dora_diffusion.toybox.words import CLASSES, COLORS, PATTERNS, SCENES, STYLES, names

TWINS = ("shape", "color", "roles", "pattern", "emblem")

NAMED_SEED = 512_000
STRETCH = (0.84, 1.18)
PHOTO_SHARE = 0.7  # of views whose styles are not asked for

Rows = TypeVar("Rows", bound="_Rows")


class Split(IntEnum):
    """Which toys a purpose may see. The sets share no combination of class, colours and pattern."""

    TEST = 0  # kept out of training: tests, tuning
    FINAL = 1  # kept out of training: the published figures, nothing else
    TRAIN = 2


class _Rows:
    """A table of tensors with one row a picture."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def take(self: Rows, index: Tensor | slice | list[int]) -> Rows:
        """The rows of ``index``."""
        return type(self)(**{name: column[index] for name, column in self.columns().items()})

    def columns(self) -> dict[str, Tensor]:
        """Name to column."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def cat(cls: type[Rows], tables: Sequence[Rows]) -> Rows:
        """All rows of ``tables``, in order."""
        return cls(**{f.name: torch.cat([getattr(t, f.name) for t in tables]) for f in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Instances(_Rows):
    """``n`` toys. ``shape``, ``stretch``, which role wears which colour, and all from ``emblem`` to ``finish`` is what
    no caption has words for.
    """

    kind: Tensor  # (n,) index into CLASSES
    shape: Tensor  # (n, 8) in 0 to 1: proportions and optional parts
    stretch: Tensor  # (n, 3) factors along x, y, z
    colors: Tensor  # (n, 3) index into COLORS of the roles MAIN, SECOND, THIRD
    pattern: Tensor  # (n,) index into PATTERNS
    pitch: Tensor  # (n,) 0 to 2: how fine the pattern is
    emblem: Tensor  # (n,) index into EMBLEMS
    emblem_place: Tensor  # (n, 2) in -1 to 1 within the class's sticker place
    emblem_size: Tensor  # (n,) radius
    patch: Tensor  # (n, 3) x, y in -1 to 1 and radius (0: none) of a blot of the third colour
    odd: Tensor  # (n,) one of each mirrored pair wears another colour
    finish: Tensor  # (n,) 0 matte to 1 glossy
    name: Tensor  # (n,) index into names() of the toys that have one, else -1


@dataclass(frozen=True)
class Views(_Rows):
    """``n`` ways to look at a toy: camera, light, place and style. Angles in degrees, lengths in the world's units."""

    azimuth: Tensor
    elevation: Tensor
    distance: Tensor
    shift_x: Tensor
    aim_y: Tensor
    roll: Tensor
    light_azimuth: Tensor  # against the camera's
    light_elevation: Tensor
    light: Tensor  # exposure, 1 is normal
    warmth: Tensor  # -1 cool to 1 warm
    blur: Tensor  # of the background, 0 to 1
    scene: Tensor  # index into SCENES
    style: Tensor  # index into STYLES
    seed: Tensor  # of the scene's own randomness


def index_of(name: str, names: Sequence[str] | dict[str, Any], kind: str) -> int:
    """The place of ``name`` in ``names``.

    Raises:
        ConfigError: it is not there.
    """
    try:
        return list(names).index(name)
    except ValueError:
        raise ConfigError(f"The toy world has no {kind} {name!r}; known: {', '.join(names)}.") from None


def draw_instances(
    count: int, seed: int, split: Split = Split.TRAIN, classes: Sequence[str] | None = None
) -> Instances:
    """``count`` toys of ``split``, their classes drawn evenly from ``classes`` (default: all).

    Raises:
        ConfigError: an unknown class.
    """
    generator = Generator().manual_seed(seed)
    kinds = torch.tensor([index_of(name, CLASSES, "class") for name in classes or CLASSES])
    tables: list[Instances] = []
    missing = count
    while missing > 0:
        drawn = _draw(max(64, missing + missing // 4), kinds, generator)
        kept = drawn.take(split_of(drawn) == split)
        tables.append(kept.take(slice(missing)))
        missing -= len(tables[-1])
    return Instances.cat(tables) if tables else _draw(0, kinds, generator)


def split_of(instances: Instances) -> Tensor:
    """``(n,)`` the split each toy belongs to: a hash of its class, colours and pattern, 1/16 each held out."""
    key = instances.kind
    for column in (*instances.colors.unbind(1), instances.pattern):
        key = (key * 31 + column + 7) * 2654435761 % 4294967296
        key = key ^ (key >> 13)
    return torch.clamp(key % 16, max=int(Split.TRAIN))


def _draw(count: int, kinds: Tensor, generator: Generator) -> Instances:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def integer(limit: int) -> Tensor:
        return torch.randint(limit, (count,), generator=generator)

    kind = kinds[integer(len(kinds))]
    shape = uniform(8)
    stretch = STRETCH[0] + (STRETCH[1] - STRETCH[0]) * uniform(3)
    colors = uniform(len(COLORS)).argsort(1)[:, :3]
    pattern = integer(2 * len(PATTERNS))  # half of all toys and a bit more are plain
    pattern = torch.where(pattern < len(PATTERNS), pattern, 0)
    emblem = torch.where(uniform() < 0.8, 1 + integer(len(EMBLEMS) - 1), 0)
    patch_radius = torch.where(uniform() < 0.35, 0.13 + 0.08 * uniform(), 0.0)
    return Instances(
        kind=kind,
        shape=shape,
        stretch=stretch,
        colors=colors,
        pattern=pattern,
        pitch=integer(3),
        emblem=emblem,
        emblem_place=2 * uniform(2) - 1,
        emblem_size=0.13 + 0.04 * uniform(),
        patch=torch.cat([2 * uniform(2) - 1, patch_radius[:, None]], 1),
        odd=uniform() < 0.3,
        finish=uniform(),
        name=torch.full((count,), -1),
    )


def named_toys() -> Instances:
    """The toys that have a name, one a name, all of the split TRAIN."""
    count = len(names())
    return replace(draw_instances(count, NAMED_SEED), name=torch.arange(count))


def mixed_with_named(instances: Instances, share: float, seed: int) -> Instances:
    """``instances``, about ``share`` of them replaced by toys that have a name."""
    generator = Generator().manual_seed(seed)
    chosen = torch.rand(len(instances), generator=generator) < share
    which = torch.randint(len(names()), (len(instances),), generator=generator)
    known = named_toys().take(which).columns()

    def pick(name: str, column: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (column.ndim - 1)), known[name], column)

    return Instances(**{name: pick(name, column) for name, column in instances.columns().items()})


def twins(instances: Instances, what: str, seed: int) -> Instances:
    """The same toys in everything but ``what``, one of ``TWINS``: the hard cases of telling toys apart.

    ``shape``: every proportion at least 0.3 of its range away. ``color``: one of the three colours is a fourth one.
    ``roles``: the same colours on other parts. ``pattern``, ``emblem``: another one (or none, where there was one).

    Raises:
        ConfigError: unknown ``what``.
    """
    index_of(what, TWINS, "twin")
    generator = Generator().manual_seed(seed)
    count = len(instances)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def other(column: Tensor, limit: int) -> Tensor:
        return (column + 1 + (uniform() * (limit - 1)).long().clamp(max=limit - 2)) % limit

    columns = instances.columns()
    columns["name"] = torch.full((count,), -1)
    if what == "shape":
        columns["shape"] = (instances.shape + 0.3 + 0.4 * uniform(8)) % 1.0
        low, high = STRETCH
        turned = ((instances.stretch - low) / (high - low) + 0.3 + 0.4 * uniform(3)) % 1.0
        columns["stretch"] = low + (high - low) * turned
    elif what == "color":
        unused = torch.ones(count, len(COLORS)).scatter(1, instances.colors, 0.0)
        fresh = torch.multinomial(unused, 1, generator=generator) if count else instances.colors[:, :1]
        columns["colors"] = instances.colors.scatter(1, (uniform(1) * 3).long().clamp(max=2), fresh)
    elif what == "roles":
        orders = torch.tensor([[1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]])
        columns["colors"] = instances.colors.gather(1, orders[(uniform() * 5).long().clamp(max=4)])
    elif what == "pattern":
        columns["pattern"] = other(instances.pattern, len(PATTERNS))
    else:
        columns["emblem"] = other(instances.emblem, len(EMBLEMS))
    return Instances(**columns)


def draw_views(
    instances: Instances, seed: int, *, scenes: Sequence[str] | None = None, styles: Sequence[str] | None = None
) -> Views:
    """One view of each toy.

    Args:
        scenes: drawn evenly from these (default: all).
        styles: drawn evenly from these; by default 70 % are photos and the other styles share the rest.

    Raises:
        ConfigError: an unknown scene or style.
    """
    generator = Generator().manual_seed(seed)
    count = len(instances)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def one_of(places: list[int], weights: Tensor) -> Tensor:
        drawn = torch.multinomial(weights, count, True, generator=generator) if count else torch.zeros(0).long()
        return torch.tensor(places)[drawn]

    toys = [TOYS[name] for name in CLASSES]
    facing = torch.tensor([float(toy.facing) for toy in toys])[instances.kind]
    height = torch.tensor([float(toy.height) for toy in toys])[instances.kind] * instances.stretch[:, 1]
    side = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    style_weights = torch.tensor([PHOTO_SHARE, *[(1 - PHOTO_SHARE) / (len(STYLES) - 1)] * (len(STYLES) - 1)])
    return Views(
        azimuth=facing + between(-46, 46),
        elevation=between(3, 26),
        distance=between(2.0, 2.75) * (0.50 + 0.58 * height),
        shift_x=between(-0.11, 0.11) * height,
        aim_y=between(0.40, 0.52) * height,
        roll=between(-4, 4),
        light_azimuth=between(25, 75) * side,
        light_elevation=between(32, 62),
        light=between(0.85, 1.15),
        warmth=between(-1, 1),
        blur=between(-0.6, 1.0).clamp(min=0),
        scene=one_of([index_of(s, SCENES, "scene") for s in scenes or SCENES], torch.ones(len(scenes or SCENES))),
        style=one_of(
            [index_of(s, STYLES, "style") for s in styles or STYLES],
            torch.ones(len(styles)) if styles else style_weights,
        ),
        seed=torch.randint(2**31 - 1, (count,), generator=generator),
    )
