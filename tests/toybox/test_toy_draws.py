"""Which toys and views are drawn: repeatable, held out where they must be, twins equal in all but one thing."""

import pytest
import torch

from dora_diffusion.errors import ConfigError
from dora_diffusion.toybox.draws import (
    TWINS,
    Instances,
    Split,
    draw_instances,
    draw_views,
    mixed_with_named,
    named_toys,
    split_of,
    twins,
)
from dora_diffusion.toybox.emblems import EMBLEMS
from dora_diffusion.toybox.words import CLASSES, PATTERNS, SCENES, STYLES, names

CHANGED = {
    "shape": {"shape", "stretch"},
    "color": {"colors"},
    "roles": {"colors"},
    "pattern": {"pattern"},
    "emblem": {"emblem"},
}


def test_a_seed_means_the_same_toys():
    first, again, other = (draw_instances(50, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.columns().values(), again.columns().values(), strict=True))
    assert not torch.equal(first.shape, other.shape)


@pytest.mark.parametrize("split", list(Split))
def test_splits_share_no_combination(split: Split):
    toys = draw_instances(400, 1, split)
    assert len(toys) == 400
    assert (split_of(toys) == split).all()


def test_a_sixteenth_each_is_held_out():
    every = Instances.cat([draw_instances(1, seed, Split.TRAIN) for seed in range(3)])
    assert len(every) == 3
    from dora_diffusion.toybox.draws import _draw

    anything = _draw(40_000, torch.arange(len(CLASSES)), torch.Generator().manual_seed(0))
    shares = torch.bincount(split_of(anything), minlength=3) / 40_000
    assert torch.allclose(shares, torch.tensor([1 / 16, 1 / 16, 14 / 16]), atol=0.006)


def test_classes_colours_and_patterns_are_spread():
    toys = draw_instances(6000, 2)
    assert torch.bincount(toys.kind, minlength=len(CLASSES)).min() > 200
    assert torch.bincount(toys.pattern, minlength=len(PATTERNS)).min() > 400
    assert torch.bincount(toys.emblem, minlength=len(EMBLEMS)).min() > 400
    assert (toys.colors.sort(1).values.diff(dim=1) > 0).all(), "three different colours"


def test_only_the_classes_asked_for():
    toys = draw_instances(30, 0, classes=["mug", "car"])
    assert {CLASSES[k] for k in toys.kind.tolist()} == {"mug", "car"}
    with pytest.raises(ConfigError, match="no class 'spoon'"):
        draw_instances(1, 0, classes=["spoon"])


@pytest.mark.parametrize("what", TWINS)
def test_twins_differ_in_one_thing(what: str):
    toys = draw_instances(200, 5, Split.TEST)
    other = twins(toys, what, 6)
    for name, column in toys.columns().items():
        same = (
            (column == other.columns()[name]).flatten(1).all(1) if column.ndim > 1 else column == other.columns()[name]
        )
        assert (not same.any()) if name in CHANGED[what] else same.all(), name


def test_twin_colours():
    toys = draw_instances(300, 5)
    recolored, swapped = twins(toys, "color", 1).colors, twins(toys, "roles", 1).colors
    assert ((recolored != toys.colors).sum(1) == 1).all()
    assert (recolored.sort(1).values.diff(dim=1) > 0).all()
    assert torch.equal(swapped.sort(1).values, toys.colors.sort(1).values)


def test_twin_shapes_are_far():
    toys = draw_instances(300, 5)
    moved = (twins(toys, "shape", 1).shape - toys.shape).abs()
    assert torch.minimum(moved, 1 - moved).min() >= 0.299


def test_unknown_twin():
    with pytest.raises(ConfigError, match="no twin 'size'"):
        twins(draw_instances(1, 0), "size", 0)


def test_views_keep_to_what_is_asked():
    toys = draw_instances(300, 1)
    views = draw_views(toys, 2, scenes=["moon", "snow"], styles=["photo"])
    assert {list(SCENES)[s] for s in views.scene.tolist()} == {"moon", "snow"}
    assert set(views.style.tolist()) == {0}
    free = draw_views(toys, 2)
    assert 0.6 < (free.style == 0).float().mean() < 0.8
    assert set(free.style.tolist()) == set(range(len(STYLES)))
    with pytest.raises(ConfigError, match="no scene 'attic'"):
        draw_views(toys, 0, scenes=["attic"])


def test_named_toys():
    toys = named_toys()
    assert len(toys) == len(names()) == len(set(names()))
    assert (split_of(toys) == Split.TRAIN).all()
    mixed = mixed_with_named(draw_instances(4000, 1), 0.25, 2)
    called = mixed.name >= 0
    assert 0.22 < called.float().mean() < 0.28
    assert torch.equal(mixed.take(called).colors, toys.take(mixed.name[called]).colors)
    assert (draw_instances(100, 1).name == -1).all()
    assert (twins(toys, "emblem", 0).name == -1).all()


def test_take_and_cat():
    toys = draw_instances(7, 1)
    again = Instances.cat([toys.take(slice(3)), toys.take([3, 4]), toys.take(torch.tensor([5, 6]))])
    assert len(again) == 7
    assert torch.equal(again.colors, toys.colors)
