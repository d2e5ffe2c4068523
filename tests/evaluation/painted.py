"""Pictures that say in their pixels what they show, and an eye that reads it there."""

import math

import torch
from torch import Tensor, nn

from dora_diffusion.toybox.eye import NOTHING, Seen
from dora_diffusion.toybox.words import CLASSES, COLORS, SCENES, STYLES


def picture(
    kind: str = "mug",
    scene: str = "beach",
    style: str = "photo",
    degrees: float = 0.0,
    sure: float = 1.0,
    side: int = 8,
) -> Tensor:
    """A toy of ``kind`` whose embedding lies ``degrees`` from that of the subject; "" shows nothing."""
    image = torch.full((3, side, side), 0.5)
    image[0, 0, 0] = (CLASSES.index(kind) if kind else NOTHING) / 100
    image[1, 0, 0] = list(SCENES).index(scene) / 100
    image[2, 0, 0] = list(STYLES).index(style) / 100
    image[0, 0, 1] = degrees / 180
    image[1, 0, 1] = sure
    return image


def pictures(*many: Tensor) -> Tensor:
    """One batch."""
    return torch.stack(many)


class ReadingEye(nn.Module):
    """Sees what ``picture`` wrote."""

    def see(self, images: Tensor) -> Seen:
        def logits(place: tuple[int, int, int], count: int, sure: Tensor | None = None) -> Tensor:
            index = (images[:, place[0], place[1], place[2]] * 100).round().long().clamp(0, count - 1)
            share = torch.full((len(images),), 0.999) if sure is None else sure.clamp(1e-3, 0.999)
            rest = ((1 - share) / (count - 1))[:, None].expand(-1, count)
            return rest.scatter(1, index[:, None], share[:, None]).log()

        angle = images[:, 0, 0, 1] * math.pi
        embedding = torch.stack([angle.cos(), angle.sin()], 1)
        return Seen(
            embedding,
            logits((0, 0, 0), len(CLASSES) + 1, images[:, 1, 0, 1]),
            logits((1, 0, 0), len(SCENES)),
            logits((2, 0, 0), len(STYLES)),
            logits((2, 0, 1), len(COLORS)),
        )
