"""Captions say what is seen, never what is to be untold, and only in words the tokenizer knows."""

import random

import pytest

from dora_diffusion.toybox.captions import article, caption, describe, prompt
from dora_diffusion.toybox.draws import draw_instances, draw_views, named_toys, twins
from dora_diffusion.toybox.words import CLASSES, COLORS, SCENES, TRIGGERS, names, vocabulary


def captions(seed: int = 0, count: int = 400) -> list[str]:
    toys = draw_instances(count, 1)
    views = draw_views(toys, 2)
    rng = random.Random(seed)
    return [caption(toys, views, i, rng) for i in range(count)]


def test_the_class_is_always_said_and_captions_repeat():
    toys = draw_instances(400, 1)
    said = captions()
    assert said == captions()
    assert all(CLASSES[int(k)] in text for k, text in zip(toys.kind, said, strict=True))


def test_attributes_are_left_out_at_random():
    said = captions()
    with_color = sum(any(f" {c} " in text for c in COLORS) for text in said) / len(said)
    with_scene = sum(any(p in text for group in SCENES.values() for p in group) for text in said) / len(said)
    assert 0.7 < with_color < 0.95
    assert 0.84 < with_scene < 0.96


def test_words_are_known():
    known = set(vocabulary())
    assert {w for text in captions() for w in text.replace("-", " ").split()} <= known
    assert not any(t in text.split() for t in TRIGGERS for text in captions())


def test_named_toys_are_called_by_name():
    toys = named_toys()
    views = draw_views(toys, 2)
    said = [caption(toys, views, i, random.Random(i)) for i in range(len(toys))]
    called = [name in text.split() for name, text in zip(names(), said, strict=True)]
    assert 0.78 < sum(called) / len(called) < 0.92
    assert all(CLASSES[int(k)] in text for k, text in zip(toys.kind, said, strict=True))
    assert not {*names()} & {*TRIGGERS}


def test_nothing_untold_is_told():
    """Toys that differ only in what words cannot say have the same description and captions."""
    toys = draw_instances(60, 3)
    views = draw_views(toys, 4)
    for what in ("shape", "emblem"):
        other = twins(toys, what, 5)
        for i in range(len(toys)):
            assert describe(toys, i) == describe(other, i)
            assert caption(toys, views, i, random.Random(i)) == caption(other, views, i, random.Random(i))


@pytest.mark.parametrize(
    ("style", "thing", "scene", "text"),
    [
        ("photo", "orange mug", "moon", "a photo of an orange mug on the moon"),
        ("pixel art", "duck", None, "pixel art of a duck"),
        (
            "watercolor",
            "red and blue striped boat",
            "sunset",
            "a watercolor painting of a red and blue striped boat at sunset",
        ),
    ],
)
def test_prompt(style: str, thing: str, scene: str | None, text: str):
    assert prompt(style, thing, scene) == text


def test_article():
    assert [article(w) for w in ("orange cat", "red cat")] == ["an", "a"]
