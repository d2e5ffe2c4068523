"""Whether a picture repeats a training photo instead of showing its subject anew.

A photo is compared with a picture as a whole: the middle of the photo, small, is slid over the picture at a few sizes,
as it is and mirrored, and the best normalised correlation counts. Brightness, contrast and tint drop out.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE, WINDOW = 96, 80  # pixels: the picture, and the photo's middle that is slid over it
SCALES = (0.88, 0.94, 1.0, 1.06, 1.14)
# Measured on rendered toys: touched-up photos score 0.97 and more, other views of the toy up to 0.87, pictures of well
# taught subjects mostly up to 0.90, and up to 0.95 where they take the pose of the white studio's photo in the snow; a
# render of just that scores up to 0.995.
THRESHOLD = 0.94


def copy_scores(pictures: Tensor, photos: Tensor) -> Tensor:
    """How nearly each picture is some photo: 1 is a copy up to brightness, contrast, tint, a small shift or a flip.

    Shapes: (n, 3, h, w) and (photos, 3, h, w), in [0, 1] and square, to (n,).
    """
    templates = _templates(photos)
    best = [_correlation(_shrunk(pictures, round(SIDE * scale)), templates).amax((1, 2, 3)) for scale in SCALES]
    return torch.stack(best).amax(0)


def repeats(scores: Sequence[float], scene_right: Sequence[bool]) -> tuple[int, int]:
    """How many pictures repeat a training photo as a whole, and how many only its pose.

    No photo shows the scene that was asked for. Where the eye sees that scene (``scene_right``), a high score has found
    the photo's pose on a ground of much the same colour: a white studio's in the snow.
    """
    high = [right for score, right in zip(scores, scene_right, strict=True) if score >= THRESHOLD]
    return high.count(False), high.count(True)


def _shrunk(images: Tensor, side: int) -> Tensor:
    """Half as sharp as ``side`` pixels could be, so that half a pixel more or less does not matter."""
    soft = F.interpolate(images.float(), (side // 2, side // 2), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(soft, (side, side), mode="bicubic", align_corners=False)


def _templates(photos: Tensor) -> Tensor:
    """The photos' middles and their mirror images, each channel without its mean, together of length 1."""
    edge = (SIDE - WINDOW) // 2
    middle = _shrunk(photos, SIDE)[:, :, edge : edge + WINDOW, edge : edge + WINDOW]
    middle = torch.cat([middle, middle.flip(3)])
    middle = middle - middle.mean((2, 3), keepdim=True)
    return middle / middle.flatten(1).norm(dim=1).clamp(min=1e-6)[:, None, None, None]


def _correlation(pictures: Tensor, templates: Tensor) -> Tensor:
    """Normalised correlation at every place. Shapes: (n, 3, s, s), (t, 3, w, w) to (n, t, s - w + 1, s - w + 1).

    By way of Fourier and of running sums: the windows are nearly as large as the pictures.
    """
    side = (pictures.shape[-1],) * 2
    spectra = torch.einsum("nchw,tchw->nthw", torch.fft.rfft2(pictures), torch.fft.rfft2(templates, s=side).conj())
    places = pictures.shape[-1] - WINDOW + 1
    products = torch.fft.irfft2(spectra, s=side)[..., :places, :places]
    energy = _window_sums(pictures.square()) - _window_sums(pictures).square() / WINDOW**2
    length = energy.clamp(min=0).sum(1, keepdim=True).sqrt()
    return products / length.clamp(min=1e-3).float()


def _window_sums(pictures: Tensor) -> Tensor:
    """The sum over every window, float64: differences of running sums lose digits."""
    sums = F.pad(pictures.double(), (1, 0, 1, 0)).cumsum(2).cumsum(3)
    rows = sums[:, :, WINDOW:] - sums[:, :, :-WINDOW]
    return rows[..., WINDOW:] - rows[..., :-WINDOW]
