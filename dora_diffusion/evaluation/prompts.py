"""What is asked for when a trained subject is judged. No prompt names a scene that the training photos show."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dora_diffusion.errors import DataError
from dora_diffusion.toybox.captions import article
from dora_diffusion.toybox.words import CLASSES, SCENES, STYLES

PROMPT_SCENES = ("beach", "snow", "desert", "moon", "city", "underwater", "sunset", "forest")
SPARE_SCENES = ("library", "garden", "carpet")  # instead of a prompt scene that a user's photos show


@dataclass(frozen=True)
class Ask:
    """One picture to draw, and what should be seen in it."""

    prompt: str
    seed: int
    kind: str
    scene: str
    style: str = "photo"


@dataclass(frozen=True)
class Plan:
    """All that is drawn for one subject. Picture ``i`` of ``subject``, ``bare`` and ``worded`` has one scene and seed.

    Args:
        subject: the subject's own words ("sks mug"), drawn with the adapter.
        bare: "a mug", drawn by the base (the floor) and with the adapter (what leaked).
        worded: the subject described, drawn by the base (the second floor); empty without a description.
        styled: the subject in every style but photo, with the adapter.
        others: every other class, by both (drift).
    """

    subject: tuple[Ask, ...]
    bare: tuple[Ask, ...]
    worded: tuple[Ask, ...]
    styled: tuple[Ask, ...]
    others: tuple[Ask, ...]


def plan(
    subject: str,
    kind: str,
    description: str | None = None,
    *,
    num_images: int = 3,
    num_style_images: int = 1,
    num_drift_images: int = 2,
    seed: int = 0,
    scenes: Sequence[str] = PROMPT_SCENES,
) -> Plan:
    """The pictures for one subject.

    Args:
        subject: the words it was taught under, "sks mug".
        kind: its class, one of the toy world's.
        description: the best that words can do, without an article: "red and blue striped mug".
        num_images: pictures a scene, for each of subject, bare and worded.
        num_style_images: pictures a scene and style.
        num_drift_images: pictures of every other class.
        seed: of the first picture; each next one adds 1.
    """
    return Plan(
        _in_scenes(subject, kind, scenes, num_images, seed),
        _in_scenes(f"{article(kind)} {kind}", kind, scenes, num_images, seed),
        _in_scenes(f"{article(description)} {description}", kind, scenes, num_images, seed) if description else (),
        tuple(
            ask
            for place, style in enumerate(name for name in STYLES if name != "photo")
            for ask in _in_scenes(
                subject, kind, scenes, num_style_images, seed + place * num_style_images * len(scenes), style
            )
        ),
        _others(kind, scenes, num_drift_images, seed),
    )


def prompt_scenes(shown: Collection[str]) -> tuple[str, ...]:
    """As many scenes as ``PROMPT_SCENES`` has, or as remain, without those that the training photos show.

    Raises:
        DataError: none remains.
    """
    scenes = [scene for scene in (*PROMPT_SCENES, *SPARE_SCENES) if scene not in shown]
    if not scenes:
        raise DataError("The training photos show every scene that a prompt could name; leave some of them out.")
    return tuple(scenes[: len(PROMPT_SCENES)])


def sentence(style: str, thing: str, scene: str) -> str:
    """ "a photo of sks mug on the beach"; ``thing`` brings its article where it has one."""
    return f"{STYLES[style][0]} {thing} {SCENES[scene][0]}"


def _in_scenes(
    thing: str, kind: str, scenes: Sequence[str], count: int, seed: int, style: str = "photo"
) -> tuple[Ask, ...]:
    return tuple(
        Ask(sentence(style, thing, scene), seed + turn * len(scenes) + place, kind, scene, style)
        for turn in range(count)
        for place, scene in enumerate(scenes)
    )


def _others(kind: str, scenes: Sequence[str], count: int, seed: int) -> tuple[Ask, ...]:
    others = [name for name in CLASSES if name != kind for _ in range(count)]
    return tuple(
        Ask(
            sentence("photo", f"{article(name)} {name}", scenes[k % len(scenes)]),
            seed + k,
            name,
            scenes[k % len(scenes)],
        )
        for k, name in enumerate(others)
    )
