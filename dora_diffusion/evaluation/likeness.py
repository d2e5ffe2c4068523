"""How much a picture shows the subject of the photos: the definition, as pure functions.

``s(x)`` is the mean cosine between a picture's embedding and those of the training photos. By itself it means nothing,
so it is read against two points: the ceiling, photos of the subject that were held out, and the floor, what the
untouched base draws for "a <class>" in the same scenes from the same seeds. ``L = (s - floor) / (ceiling - floor)``,
not clipped: 0 is any toy of the class, 1 a true photo, and more is possible, since a model draws canonical views. A
picture in which the eye's class head does not see the class counts 0.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.errors import DataError

MIN_RANGE = 0.2


@dataclass(frozen=True)
class Likeness:
    """Of one trained subject: the two points of reference (raw cosines) and the value of each picture."""

    floor: float
    ceiling: float
    values: Tensor

    @property
    def mean(self) -> float:
        return self.values.mean().item()


def photo_cosines(embeddings: Tensor, photos: Tensor) -> Tensor:
    """``s(x)`` of every picture. Shapes: (n, d), (photos, d) to (n,)."""
    return (F.normalize(embeddings.double(), dim=1) @ F.normalize(photos.double(), dim=1).T).mean(1)


def leave_one_out(photos: Tensor) -> Tensor:
    """The mean cosine of every photo to the others: a stand-in for held-out photos. Shapes: (n, d) to (n,).

    Raises:
        DataError: fewer than two photos.
    """
    count = len(photos)
    if count < 2:
        raise DataError(
            "Likeness needs two training photos at least, or held-out photos of the subject (--held_out_data_dir); "
            f"there is {count}."
        )
    # A photo's cosine to itself is 1: taken out of its sum.
    return (photo_cosines(photos, photos) * count - 1) / (count - 1)


def normalised(cosines: Tensor, accepted: Tensor, floor: Tensor, ceiling: Tensor) -> Tensor:
    """``L`` of every picture, 0 where it was not accepted; shapes broadcast."""
    return (cosines - floor) / (ceiling - floor) * accepted


def likeness(cosines: Tensor, accepted: Tensor, base_cosines: Tensor, ceiling_cosines: Tensor) -> Likeness:
    """The likeness of pictures (n,), from the cosines of the base's pictures and of photos, any number each.

    Raises:
        DataError: ceiling and floor are less than ``MIN_RANGE`` apart.
    """
    floor, ceiling = base_cosines.double().mean(), ceiling_cosines.double().mean()
    check_range(floor.item(), ceiling.item())
    return Likeness(floor.item(), ceiling.item(), normalised(cosines.double(), accepted, floor, ceiling))


def check_range(floor: float, ceiling: float) -> None:
    """Refuse a scale on which noise would decide.

    Raises:
        DataError: ceiling and floor are less than ``MIN_RANGE`` apart.
    """
    if ceiling - floor < MIN_RANGE:
        raise DataError(
            "No likeness can be given: to the eye, other photos of the subject are hardly nearer to the training "
            f"photos (cosine {ceiling:.2f}) than what the base draws for its class ({floor:.2f}); they must be "
            f"{MIN_RANGE} apart."
        )


def class_probability(class_logits: Tensor, kind: int) -> Tensor:
    """How sure the eye is to see class ``kind``. Shapes: (n, classes + 1), the last being "nothing", to (n,)."""
    return class_logits.double().softmax(1)[:, kind]
