"""Photos as training pictures: resized once, then cropped and mirrored afresh for every sample."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dora_diffusion.data.buckets import Order, Shape, cover, nearest
from dora_diffusion.data.captions import Captions
from dora_diffusion.data.draws import integer
from dora_diffusion.data.masks import MaskOf, fitted
from dora_diffusion.data.photos import open_photo


@dataclass(frozen=True)
class View:
    """One way to look at one photo: left and top of the crop in pixels, and whether it is mirrored.

    ``shape``: height and width of the crop where it is not that of the photo's own bucket.
    """

    photo: int
    left: int
    top: int
    flip: bool
    shape: Shape | None = None


@dataclass(frozen=True)
class _Picture:
    """A photo resized for a bucket: ``pixels`` (3, h, w) and ``mask`` (1, h, w), uint8.

    ``size``: height and width on disk; ``bucket``: the shape it was resized to cover.
    """

    pixels: Tensor
    mask: Tensor | None
    size: Shape
    bucket: Shape


class Photos:
    """The photos of one kind (the subject's, or the class's), in memory as uint8 at training size.

    Args:
        paths: the files.
        resolution: side of the square training picture, in pixels.
        center_crop: crop the centre always; otherwise the place is drawn for every sample.
        random_flip: mirror half of the samples.
        name: what the draws are filed under ("instance", "class").
        buckets: shapes of training pictures instead of the square; a photo's is the one of the nearest proportions.
        chunk: how many samples in a row share a bucket: what all processes take in together.
        repeats: how often a pass over the photos takes each.
        like: other photos, whose buckets these follow: a sample has the shape that it has there.
        captions: what the photos are called; left out, nothing may ask.
        mask_of: the mask of a photo; left out, every pixel counts alike.
        unmasked_weight: what a pixel counts where its mask is black; 1 where it is white.

    Raises:
        DataError: a photo or a mask cannot be read, or the two do not belong together.
    """

    def __init__(
        self,
        paths: list[Path],
        resolution: int,
        *,
        center_crop: bool,
        random_flip: bool,
        name: str,
        buckets: Sequence[Shape] = (),
        chunk: int = 1,
        repeats: int = 1,
        like: "Photos | None" = None,
        captions: Captions | None = None,
        mask_of: MaskOf | None = None,
        unmasked_weight: float = 0.0,
    ):
        self.paths = paths
        self.center_crop = center_crop
        self.random_flip = random_flip
        self.name = name
        self._captions = captions
        self.has_masks = mask_of is not None
        self._unmasked_weight = unmasked_weight
        self._like = like
        shapes: list[Shape] = like.buckets if like else list(buckets) or [(resolution, resolution)]
        self._pictures = [_load(path, shapes, mask_of) for path in paths]
        own = [picture.bucket for picture in self._pictures]
        # Only those that hold photos, in the order they were given in: an unused one must not change the order's draws.
        self.buckets: list[Shape] = [shape for shape in shapes if shape in own]
        members = [[k for k, bucket in enumerate(own) if bucket == shape] for shape in self.buckets]
        self._order = Order([range(len(paths))] if like else members, chunk=chunk, repeats=repeats, name=name)

    def __len__(self) -> int:
        return len(self.paths)

    def bucket_of(self, photo: int) -> Shape:
        """Height and width in pixels of the photo's own bucket."""
        return self._pictures[photo].bucket

    def shape(self, seed: int, sample: int) -> Shape:
        """Height and width in pixels of sample number ``sample`` of the whole run."""
        if self._like is not None:
            return self._like.shape(seed, sample)
        return self.buckets[self._order.bucket(seed, sample)]

    def view(self, seed: int, sample: int) -> View:
        """The view that sample number ``sample`` of the whole run gets."""
        photo = self._order.photo(seed, sample)
        view = self._centred(photo, self.shape(seed, sample))
        if not self.center_crop:
            height, width = self._shape_of(view)
            resized = cover((height, width), *self._pictures[photo].size)
            left, top = (
                integer(room + 1, seed, f"{self.name}-crop-{axis}", sample)
                for room, axis in ((resized[1] - width, "x"), (resized[0] - height, "y"))
            )
            view = replace(view, left=left, top=top)
        flip = self.random_flip and integer(2, seed, f"{self.name}-flip", sample) == 1
        return replace(view, flip=flip)

    def fixed_views(self) -> list[View] | None:
        """Every view that can come, where no crop is drawn; None where one is."""
        views = [
            self._centred(photo, shape)
            for photo, picture in enumerate(self._pictures)
            for shape in (self._like.buckets if self._like else [picture.bucket])
        ]
        if not all(self.has_few_views(view) for view in views):
            return None
        return views + [replace(view, flip=True) for view in views if self.random_flip]

    def _centred(self, photo: int, shape: Shape) -> View:
        """The photo's centre crop of ``shape``, as it is."""
        picture = self._pictures[photo]
        height, width = cover(shape, *picture.size)
        other = None if shape == picture.bucket else shape
        return View(photo, (width - shape[1]) // 2, (height - shape[0]) // 2, False, other)

    def caption(self, view: View, seed: int, sample: int) -> str:
        """What sample number ``sample`` is called, whose view is ``view``."""
        assert self._captions is not None, f"the {self.name} photos were given no captions"
        return self._captions.caption(view.photo, seed, sample)

    def fixed_captions(self) -> list[str]:
        """The captions that can be told before anything is drawn, each once."""
        return self._captions.fixed() if self._captions else []

    def pixel_values(self, view: View) -> Tensor:
        """(3, h, w) in [-1, 1], float32, the size of the view's bucket."""
        picture = self._pictures[view.photo]
        if view.shape is not None:  # of class images only; their latents are kept, so each is read once
            picture = _load(self.paths[view.photo], [view.shape], None)
        return self._crop(picture.pixels, view).float() / 127.5 - 1

    def loss_weights(self, view: View, grid: Shape) -> Tensor:
        """(1, *grid) float32 in [0, 1]: what each place of the latents counts, the mean over its pixels.

        1 everywhere without masks.
        """
        mask = self._pictures[view.photo].mask
        if mask is None:
            return torch.ones(1, *grid)
        crop = self._crop(mask, view).float() / 255
        per_place = F.avg_pool2d(crop, (crop.shape[1] // grid[0], crop.shape[2] // grid[1]))
        return self._unmasked_weight + (1 - self._unmasked_weight) * per_place

    def framing(self, view: View) -> tuple[int, int, int, int, int, int]:
        """Pixels: height and width of the photo as it lies on disk, top and left of the crop, height and width of it.

        Top and left count from the corner of the picture as it is cropped: resized, and mirrored if it is.
        """
        height, width = self._shape_of(view)
        size = self._pictures[view.photo].size
        left = cover((height, width), *size)[1] - width - view.left if view.flip else view.left
        return (*size, view.top, left, height, width)

    def has_few_views(self, view: View) -> bool:
        """Whether this photo's views are so few (its crop is fixed) that their encodings are worth keeping."""
        shape = self._shape_of(view)
        return self.center_crop or cover(shape, *self._pictures[view.photo].size) == shape

    def _shape_of(self, view: View) -> Shape:
        return view.shape or self._pictures[view.photo].bucket

    def _crop(self, picture: Tensor, view: View) -> Tensor:
        height, width = self._shape_of(view)
        crop = picture[:, view.top : view.top + height, view.left : view.left + width]
        return crop.flip(2) if view.flip else crop


def _load(path: Path, shapes: Sequence[Shape], mask_of: MaskOf | None) -> _Picture:
    """The photo, resized to cover the shape of the nearest proportions."""
    photo = open_photo(path)
    shape = nearest(shapes, photo.height, photo.width)
    height, width = cover(shape, photo.height, photo.width)
    pixels = np.array(photo.resize((width, height), Image.Resampling.LANCZOS))
    mask = None
    if mask_of is not None:
        mask = torch.from_numpy(np.array(fitted(mask_of(path), photo, path, (width, height))))[None]
    picture = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return _Picture(picture, mask, (photo.height, photo.width), shape)
