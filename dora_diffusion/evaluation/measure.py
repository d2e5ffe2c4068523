"""What the eye says of the pictures of one trained subject, picture by picture: all that figures are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dora_diffusion.evaluation.copies import copy_scores
from dora_diffusion.evaluation.likeness import class_probability, leave_one_out, photo_cosines
from dora_diffusion.evaluation.prompts import Ask, Plan
from dora_diffusion.toybox.eye import Seen
from dora_diffusion.toybox.words import CLASSES, SCENES, STYLES

HELD_OUT, AMONG_THEMSELVES = "held-out photos", "the training photos among themselves"

# Group of pictures to (field of the plan that asked for them, whether the adapter draws them).
GROUPS = {
    "base_bare": ("bare", False),
    "base_worded": ("worded", False),
    "base_others": ("others", False),
    "subject": ("subject", True),
    "bare": ("bare", True),
    "styled": ("styled", True),
    "others": ("others", True),
}


class Looks(Protocol):
    """What is asked of an eye."""

    def see(self, images: Tensor) -> Seen:
        """What it says of pictures (n, 3, h, w) in [0, 1]."""


@dataclass(frozen=True)
class Group:
    """Pictures that were asked for in one way; one entry a picture.

    Args:
        cosine: mean cosine to the training photos.
        probability: how sure the eye is of the class that was asked for.
        class_right, scene_right, style_right: whether the eye sees what was asked for.
    """

    cosine: list[float]
    probability: list[float]
    class_right: list[bool]
    scene_right: list[bool]
    style_right: list[bool]


@dataclass(frozen=True)
class Measured:
    """One trained subject.

    Args:
        kind: its class.
        ceiling: cosines of real photos, and ``ceiling_of`` which.
        photos_accepted: which training photos pass the gate.
        groups: by the names of ``GROUPS``; a group that was not asked for is missing.
        copies: of each picture of the subject, how nearly it is a training photo.
    """

    kind: str
    ceiling: list[float]
    ceiling_of: str
    photos_accepted: list[bool]
    groups: dict[str, Group]
    copies: list[float]

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Measured":
        """Back from ``to_json``."""
        groups = {name: Group(**group) for name, group in content["groups"].items()}
        return cls(**{**content, "groups": groups})


def measure(
    drawn: Mapping[str, Tensor], plan: Plan, photos: Tensor, held_out: Tensor | None, eye: Looks, gate: float
) -> Measured:
    """Look at everything that was drawn for one subject.

    Args:
        drawn: pictures (n, 3, h, w) in [0, 1] by the names of ``GROUPS``, in the order of the plan.
        photos, held_out: square photos (n, 3, h, w) in [0, 1]; without held-out ones the training photos are compared
            with one another.
        gate: class probability that a photo must have to count as one of its class.

    Raises:
        DataError: there is one training photo, and none is held out.
    """
    kind = plan.subject[0].kind
    seen_photos = eye.see(photos)
    if held_out is None:
        ceiling, ceiling_of = leave_one_out(seen_photos.embedding), AMONG_THEMSELVES
    else:
        ceiling, ceiling_of = photo_cosines(eye.see(held_out).embedding, seen_photos.embedding), HELD_OUT
    sure = class_probability(seen_photos.class_logits, CLASSES.index(kind))
    groups = {
        name: _look(drawn[name], getattr(plan, asked), seen_photos.embedding, eye)
        for name, (asked, _) in GROUPS.items()
        if len(getattr(plan, asked))
    }
    return Measured(
        kind,
        ceiling.tolist(),
        ceiling_of,
        (sure >= gate).tolist(),
        groups,
        copy_scores(drawn["subject"], photos).tolist(),
    )


def _look(pictures: Tensor, asks: Sequence[Ask], photos: Tensor, eye: Looks) -> Group:
    """One group, whose pictures must be as many as its asks."""
    if len(pictures) != len(asks):
        raise ValueError(f"{len(pictures)} pictures were drawn and {len(asks)} asked for")
    seen = eye.see(pictures)
    kinds = torch.tensor([CLASSES.index(ask.kind) for ask in asks], device=seen.class_logits.device)
    probability = seen.class_logits.double().softmax(1).gather(1, kinds[:, None])[:, 0]

    def right(logits: Tensor, names: Sequence[str], wanted: Sequence[str]) -> list[bool]:
        return [names.index(word) == found for word, found in zip(wanted, logits.argmax(1).tolist(), strict=True)]

    return Group(
        cosine=photo_cosines(seen.embedding, photos).tolist(),
        probability=probability.tolist(),
        class_right=right(seen.class_logits, CLASSES, [ask.kind for ask in asks]),
        scene_right=right(seen.scene_logits, list(SCENES), [ask.scene for ask in asks]),
        style_right=right(seen.style_logits, list(STYLES), [ask.style for ask in asks]),
    )
