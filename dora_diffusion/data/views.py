"""Photos as training pictures: resized once, then cropped and mirrored afresh for every sample."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dora_diffusion.data.draws import integer, shuffled
from dora_diffusion.data.photos import open_photo


@dataclass(frozen=True)
class View:
    """One way to look at one photo: left and top of the crop in pixels, and whether it is mirrored."""

    photo: int
    left: int
    top: int
    flip: bool


class Photos:
    """The photos of one kind (the subject's, or the class's), in memory as uint8 at training size.

    Args:
        paths: the files.
        resolution: side of the square training picture, in pixels.
        center_crop: crop the centre always; otherwise the place is drawn for every sample.
        random_flip: mirror half of the samples.
        name: what the draws are filed under ("instance", "class").

    Raises:
        DataError: a photo cannot be read.
    """

    def __init__(self, paths: list[Path], resolution: int, *, center_crop: bool, random_flip: bool, name: str):
        self.paths = paths
        self.resolution = resolution
        self.center_crop = center_crop
        self.random_flip = random_flip
        self.name = name
        loaded = [_load(path, resolution) for path in paths]
        self._pictures = [picture for picture, _ in loaded]
        self._sizes = [size for _, size in loaded]

    def __len__(self) -> int:
        return len(self.paths)

    def view(self, seed: int, sample: int) -> View:
        """The view that sample number ``sample`` of the whole run gets."""
        photo = shuffled(len(self), sample, seed, f"{self.name}-order")
        _, height, width = self._pictures[photo].shape
        free = width - self.resolution, height - self.resolution
        if self.center_crop:
            left, top = free[0] // 2, free[1] // 2
        else:
            left, top = (
                integer(room + 1, seed, f"{self.name}-crop-{axis}", sample)
                for room, axis in zip(free, "xy", strict=True)
            )
        flip = self.random_flip and integer(2, seed, f"{self.name}-flip", sample) == 1
        return View(photo, left, top, flip)

    def pixel_values(self, view: View) -> Tensor:
        """(3, resolution, resolution) in [-1, 1], float32."""
        side = self.resolution
        picture = self._pictures[view.photo][:, view.top : view.top + side, view.left : view.left + side]
        if view.flip:
            picture = picture.flip(2)
        return picture.float() / 127.5 - 1

    def framing(self, view: View) -> tuple[int, int, int, int, int, int]:
        """Pixels: height and width of the photo as it lies on disk, top and left of the crop, height and width of it.

        Top and left count from the corner of the picture as it is cropped: resized, and mirrored if it is.
        """
        width = self._pictures[view.photo].shape[2]
        left = width - self.resolution - view.left if view.flip else view.left
        return (*self._sizes[view.photo], view.top, left, self.resolution, self.resolution)

    def fixed_views(self) -> list[View] | None:
        """Every view that can come, where no crop is drawn; None where one is."""
        first = [View(photo, *self._centre(photo), False) for photo in range(len(self))]
        if not all(self.has_few_views(view) for view in first):
            return None
        return first + [replace(view, flip=True) for view in first if self.random_flip]

    def _centre(self, photo: int) -> tuple[int, int]:
        """Left and top of the centre crop."""
        _, height, width = self._pictures[photo].shape
        return (width - self.resolution) // 2, (height - self.resolution) // 2

    def has_few_views(self, view: View) -> bool:
        """Whether this photo's views are so few (its crop is fixed) that their encodings are worth keeping."""
        return self.center_crop or self._pictures[view.photo].shape[1:] == (self.resolution, self.resolution)


def _load(path: Path, resolution: int) -> tuple[Tensor, tuple[int, int]]:
    """(3, h, w) uint8, the shorter side brought to ``resolution``; and height and width before that."""
    photo = open_photo(path)
    factor = resolution / min(photo.size)
    size = tuple(max(resolution, round(side * factor)) for side in photo.size)
    array = np.array(photo.resize(size, Image.Resampling.LANCZOS))  # type: ignore[arg-type]
    return torch.from_numpy(array).permute(2, 0, 1).contiguous(), (photo.height, photo.width)
