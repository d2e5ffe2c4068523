"""Captions: what is seen, in words, with attributes left out at random. Proportions, emblems, patches, odd sides and
which part wears which colour are never said; only a name, which some toys have, stands for all of it.
"""

import random

from dora_diffusion.toybox.draws import Instances, Views
from dora_diffusion.toybox.words import CLASSES, COLORS, PATTERNS, SCENES, STYLES, names

NAME_SAID = 0.85  # of the captions of toys that have a name
ARTICLE_BEFORE_NAME = 0.2
SCENE_LEFT_OUT = 0.10
NAME_ALONE = 0.14


def describe(instances: Instances, i: int) -> str:
    """The best that words can do for toy ``i``: "red and blue striped mug"."""
    name, main, second, _, pattern = _words(instances, i)
    return f"{main} and {second} {name}" if pattern == "plain" else f"{main} and {second} {pattern} {name}"


def prompt(style: str, thing: str, scene: str | None) -> str:
    """ "a photo of a red mug on the beach": ``thing`` gets its article, ``scene`` (one of SCENES) its first phrase."""
    where = f" {SCENES[scene][0]}" if scene else ""
    return f"{STYLES[style][0]} {article(thing)} {thing}{where}"


def article(words: str) -> str:
    """The indefinite article of ``words``."""
    return "an" if words[0] in "aeiou" else "a"


def caption(instances: Instances, views: Views, i: int, rng: random.Random) -> str:
    """One training caption of picture ``i``."""
    style = rng.choice(list(STYLES.values())[int(views.style[i])])
    scene = list(SCENES.values())[int(views.scene[i])]
    where = "" if rng.random() < SCENE_LEFT_OUT else " " + (scene[0] if rng.random() < 0.7 else rng.choice(scene))
    thing = _some_words(instances, i, rng)
    if instances.name[i] >= 0 and rng.random() < NAME_SAID:
        kind = CLASSES[int(instances.kind[i])]
        called = f"{names()[int(instances.name[i])]} {kind if rng.random() < 0.75 else thing}"
        return f"{style} {'a ' if rng.random() < ARTICLE_BEFORE_NAME else ''}{called}{where}"
    return f"{style} {article(thing)} {thing}{where}"


def _some_words(instances: Instances, i: int, rng: random.Random) -> str:
    name, main, second, third, pattern = _words(instances, i)
    if rng.random() < NAME_ALONE:
        return name
    if pattern == "plain":
        other = second if rng.random() < 0.5 else third  # which of the two is never to be told from words
        return f"{main} {name}" if rng.random() < 0.65 else f"{main} and {other} {name}"
    choice = rng.random()
    if choice < 0.5:
        return f"{main} and {second} {pattern} {name}"
    if choice < 0.75:
        return f"{pattern} {main} {name}" if choice < 0.6 else f"{main} {pattern} {name}"
    return f"{pattern} {name}" if choice < 0.85 else f"{main} {name}"


def _words(instances: Instances, i: int) -> tuple[str, str, str, str, str]:
    main, second, third = (COLORS[int(c)] for c in instances.colors[i])
    return CLASSES[int(instances.kind[i])], main, second, third, PATTERNS[int(instances.pattern[i])]
