"""Masks: how much each pixel of a photo counts in the loss, white fully and black not at all."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from dora_diffusion.data.photos import PhotoError, find_photos, open_alpha, open_grey
from dora_diffusion.errors import DataError, some_of

MaskOf = Callable[[Path], Image.Image]  # a photo's path to its mask, mode "L", upright


def alpha_mask(photo: Path) -> Image.Image:
    """The photo's own opacity as its mask.

    Raises:
        PhotoError: the photo cannot be read, has no transparency, or is transparent everywhere.
    """
    return _not_black(open_alpha(photo), photo, f"{photo.name} is transparent everywhere")


class MaskFolder:
    """The masks of ``folder``: each a picture with its photo's stem, in any format a photo may have.

    Raises:
        DataError: the folder is missing or holds no pictures, a photo has no mask in it, or more than one.
    """

    def __init__(self, folder: Path, photos: Sequence[Path]):
        pictures = find_photos(folder)
        missing = [photo.name for photo in photos if not any(mask.stem == photo.stem for mask in pictures)]
        if missing:
            raise DataError(
                f"No mask in {folder} for {some_of(missing)}: each photo needs one with its own name "
                f"({Path(missing[0]).stem}.png, for example); an all white one counts every pixel."
            )
        self._masks: dict[Path, Path] = {}
        for photo in photos:
            masks = [mask for mask in pictures if mask.stem == photo.stem]
            if len(masks) > 1:
                raise DataError(
                    f"{folder} holds {len(masks)} masks for {photo.name}: {' and '.join(mask.name for mask in masks)}. "
                    "Keep one."
                )
            self._masks[photo] = masks[0]

    def __call__(self, photo: Path) -> Image.Image:
        """The photo's mask.

        Raises:
            PhotoError: it cannot be read, or is black everywhere.
        """
        mask = self._masks[photo]
        return _not_black(open_grey(mask), mask, f"The mask {mask.name} is black everywhere")

    @property
    def files(self) -> list[Path]:
        """The masks' files, by photo."""
        return list(self._masks.values())


def fitted(mask: Image.Image, photo: Image.Image, path: Path, size: tuple[int, int]) -> Image.Image:
    """The mask at ``size`` (width, height), to which its photo is resized.

    Resized without the overshoot of a sharper filter, which would count pixels near an edge less than none.

    Raises:
        DataError: its proportions are not the photo's, so that it cannot belong to it.
    """
    if abs(mask.width * photo.height - mask.height * photo.width) > max(photo.size):  # more than a pixel's rounding
        raise DataError(
            f"The mask of {path.name} is {mask.width} x {mask.height} pixels and the photo {photo.width} x "
            f"{photo.height}: it must have the same size, or at least the same proportions."
        )
    return mask.resize(size, Image.Resampling.BILINEAR)


def _not_black(mask: Image.Image, path: Path, what: str) -> Image.Image:
    if not mask.getextrema()[1]:
        raise PhotoError(f"{what}, so that nothing of the photo would be learnt: leave the photo out, or correct it.")
    return mask
