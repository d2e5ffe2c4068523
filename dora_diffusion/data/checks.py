"""Are these photos fit for training? Every finding names the photo, the fault and the remedy; nothing is changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from dora_diffusion.data.photos import PhotoError, find_photos, open_photo, opened, orientation, read_exif
from dora_diffusion.errors import DataError

MIN_PHOTOS, MAX_PHOTOS = 3, 30

# Measured on 32 photos of six subjects: the same photo recompressed or halved in size differs from itself by at most
# 4 of 64 bits, the two most alike of different photos (one clock, one table) by 11.
_SAME_BITS = 6
# Mean difference of 16 x 16 colour thumbnails, of 255: tells apart plain pictures, whose bits are all alike.
_SAME_COLOUR = 40.0
# Variance of the Laplacian in the sharpest of 8 x 8 tiles, shorter side 512 pixels. The same 32 photos have 1258 and
# more; blurred with a radius of 2 pixels, 209 and less.
_SHARP = 400.0

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing about a photo or a folder: an 'error' keeps it out, a 'warning' hurts the result, a 'note' informs."""

    code: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class PhotoReport:
    """What was found about one photo. ``size`` is (width, height) in pixels, upright; None where none is known."""

    path: Path
    size: tuple[int, int] | None
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether training can read the photo."""
        return not any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class _Print:
    """What near-duplicates have in common: 64 brightness steps and the colours of a thumbnail."""

    bits: npt.NDArray[np.bool_]
    colours: npt.NDArray[np.float32]

    def matches(self, other: "_Print") -> bool:
        bits = int(np.count_nonzero(self.bits != other.bits))
        return bits <= _SAME_BITS and float(np.abs(self.colours - other.colours).mean()) <= _SAME_COLOUR


def check_photos(folder: Path, resolution: int) -> list[PhotoReport]:
    """A report for every photo of ``folder``, sorted by name. A bad photo is a finding, never an exception.

    Args:
        folder: where the photos are.
        resolution: side in pixels of the square picture that training will make of them.

    Raises:
        DataError: the folder is missing, is a file, cannot be listed or holds no photos.
    """
    reports: list[PhotoReport] = []
    seen: list[tuple[Path, _Print]] = []
    for path in find_photos(folder):
        size, findings, picture = _read(path)
        if picture is not None:
            findings += _look(picture, path, resolution)
            print_ = _fingerprint(picture)
            twin = next((other for other, known in seen if known.matches(print_)), None)
            if twin is not None:
                message = (
                    f"{path.name} is nearly the same picture as {twin.name}: keep one of the two, or it counts double."
                )
                findings.append(Finding("near-duplicate", "warning", message))
            seen.append((path, print_))
        reports.append(PhotoReport(path, size, tuple(findings)))
    return reports


def folder_findings(reports: Sequence[PhotoReport]) -> list[Finding]:
    """What is to be said about the photos together, from the reports of ``check_photos``."""
    usable = sum(report.usable for report in reports)
    if usable == 0:
        return [
            Finding("no-photos", "error", f"None of the {len(reports)} photos can be read: add at least {MIN_PHOTOS}.")
        ]
    if usable < MIN_PHOTOS:
        count = "Only one photo" if usable == 1 else f"Only {usable} photos"
        message = (
            f"{count} can be used, so the model will repeat them: add photos until there are at least {MIN_PHOTOS}."
        )
        return [Finding("few-photos", "warning", message)]
    if usable > MAX_PHOTOS:
        message = f"{usable} photos are more than one subject needs: keep the {MAX_PHOTOS} sharpest and most varied."
        return [Finding("many-photos", "warning", message)]
    return []


def caption_findings(folder: Path) -> list[Finding]:
    """How many photos have captions of their own, or what is wrong with those; nothing where there are none.

    Raises:
        DataError: the folder is missing, is a file, cannot be listed or holds no photos.
    """
    # Captions know torch; the studio's server checks photos and must not load it.
    from dora_diffusion.data.captions import find_captions, tell_origins

    paths = find_photos(folder)
    try:
        captions = find_captions(paths, "auto", None, "")
    except DataError as error:
        return [Finding("captions", "warning", str(error))]
    own = sum(caption.origin != "prompt" for caption in captions)
    if not own:
        return []
    message = f"{own} of {len(paths)} photos have a caption of their own: {tell_origins(captions)}."
    return [Finding("captions", "note", message)]


def _read(path: Path) -> tuple[tuple[int, int] | None, list[Finding], Image.Image | None]:
    """(upright size, findings from the header, the picture); the last is None where it cannot be read."""
    size: tuple[int, int] | None = None
    findings: list[Finding] = []
    try:
        with opened(path) as image:
            size = image.size
            findings = _header_findings(path, image)
        picture = open_photo(path)
        return picture.size, findings, picture
    except PhotoError as error:
        return size, [*findings, Finding(error.code, "error", str(error))], None


def _header_findings(path: Path, image: Image.Image) -> list[Finding]:
    findings = []
    exif = read_exif(image)
    turn = orientation(exif)
    if turn != 1:
        message = f"{path.name} is stored turned (EXIF orientation {turn}): it will be turned upright."
        findings.append(Finding("rotated", "note", message))
    if _has_location(exif, image):
        message = (
            f"{path.name} tells where it was taken (GPS). Training neither uses nor copies that; "
            "remove it before you share the photo."
        )
        findings.append(Finding("location", "note", message))
    return findings


def _has_location(exif: Image.Exif, image: Image.Image) -> bool:
    try:
        position = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # a broken block says nothing about a place
        position = {}
    xmp = image.info.get("xmp", b"")
    in_xmp = b"GPSLatitude" in (xmp if isinstance(xmp, bytes) else str(xmp).encode())
    return ExifTags.GPS.GPSLatitude in position or in_xmp


def _look(picture: Image.Image, path: Path, resolution: int) -> list[Finding]:
    """What the upright picture itself shows: too small, or blurred."""
    if min(picture.size) < resolution:
        message = (
            f"{path.name} is {picture.width} x {picture.height} pixels, less than the {resolution} of training on its "
            "shorter side: enlarged, it would teach softness. Use a larger original or a lower resolution."
        )
        return [Finding("tiny", "warning", message)]
    if min(picture.size) >= 64 and _sharpness(picture) < _SHARP:
        message = f"{path.name} looks blurred everywhere, which the model would learn: use a sharper one if you can."
        return [Finding("blurred", "note", message)]
    return []


def _fingerprint(picture: Image.Image) -> _Print:
    box = Image.Resampling.BOX
    grey = np.asarray(picture.convert("L").resize((9, 8), box), dtype=np.int16)
    return _Print(grey[:, 1:] > grey[:, :-1], np.asarray(picture.resize((16, 16), box), dtype=np.float32))


def _sharpness(picture: Image.Image) -> float:
    """Variance of the Laplacian in the sharpest tile; a sharp subject before a soft background is sharp."""
    scale = min(1.0, 512 / min(picture.size))  # enlarging would blur a small sharp picture
    size = (round(picture.width * scale), round(picture.height * scale))
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float32)
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    height, width = edges.shape[0] // 8, edges.shape[1] // 8
    tiles = edges[: 8 * height, : 8 * width].reshape(8, height, 8, width)
    return float(tiles.var(axis=(1, 3)).max())
