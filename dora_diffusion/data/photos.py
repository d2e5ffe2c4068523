"""Photos from disk: which files of a folder are photos, and one of them as an upright sRGB picture."""

import codecs
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms

from dora_diffusion.errors import DataError, some_of
from dora_diffusion.registry import did_you_mean

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
HEIC_EXTENSIONS = (".heic", ".heif")
MAX_PIXELS = 100_000_000

# Decoders for what cameras, phones and web pages write, whatever the file is called. Pillow has dozens more, some of
# which start other programs; a file called .jpg does not get to choose those.
_READERS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# EXIF orientation to the turn that undoes it (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(DataError):
    """One photo cannot be used. ``code`` says why in one word: missing, heic, not-a-photo, unreadable or too-large."""

    def __init__(self, message: str, code: str = "unreadable"):
        super().__init__(message)
        self.code = code


def find_photos(folder: Path) -> list[Path]:
    """Every file of ``folder`` that is named like a photo, readable or not, sorted by name. Hidden files do not count.

    Raises:
        DataError: the folder is missing, is a file, cannot be listed, or holds no photos.
    """
    names = (*EXTENSIONS, *HEIC_EXTENSIONS)
    files = [path for path in _entries(folder) if path.is_file()]
    photos = [path for path in files if path.suffix.lower() in names]
    if not photos:
        raise DataError(
            f"No photos in {folder}: it holds {_inventory(folder)}. "
            f"Files ending in {' '.join(names)} count; put the photos directly into this folder."
        )
    return photos


def list_photos(folder: Path) -> list[Path]:
    """The photos of ``folder``, sorted by name.

    Raises:
        DataError: as for ``find_photos``; or there are HEIC photos and pillow-heif is not installed. Leaving those out
            without a word would train on fewer photos than the user sees.
    """
    photos = find_photos(folder)
    heic = [path.name for path in photos if path.suffix.lower() in HEIC_EXTENSIONS]
    if heic and not can_read_heic():
        raise DataError(
            f"{folder} holds HEIC photos ({some_of(heic, most=1)}), which need the package pillow-heif: "
            "pip install pillow-heif, or export the photos as JPEG."
        )
    return photos


def open_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The photo as an 8-bit RGB picture in sRGB, turned upright, transparency on white, without any metadata.

    Raises:
        PhotoError: the file is missing, is no photo, is damaged or has more than ``max_pixels``. The size is read from
            the header and refused before anything is decoded.
    """
    return _read(path, max_pixels, lambda image: _flatten(image, image.info.get("icc_profile"), "white"))


def open_grey(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture's brightness as it stands in the file (mode "L"), turned upright; what is transparent is black.

    Raises:
        PhotoError: as for ``open_photo``.
    """
    return _read(path, max_pixels, lambda image: _flatten(image, None, "black").convert("L"))


def open_alpha(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A photo's opacity (mode "L"), turned upright as the photo is: 255 is opaque.

    Raises:
        PhotoError: as for ``open_photo``; or the photo has no transparency.
    """

    def opacity(image: Image.Image) -> Image.Image:
        if not image.has_transparency_data:
            raise PhotoError(
                f"{path.name} has no transparency that could be its mask: cut the subject out and save it as PNG, "
                "or give the masks as pictures (--mask_data_dir)."
            )
        return image.convert("RGBA").getchannel("A")

    return _read(path, max_pixels, opacity)


def _read(path: Path, max_pixels: int, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """What ``convert`` makes of the photo's pixels, turned upright, without metadata."""
    with opened(path, max_pixels) as image:
        image.load()
        # After load(): Pillow turns some formats (TIFF) itself and then says 1 here.
        turn = _UPRIGHT.get(orientation(read_exif(image)))
        picture = convert(image)
        if turn is not None:
            picture = picture.transpose(turn)
    picture.info = {}  # what is left describes the file, not these pixels; a profile would be written into PNGs again
    return picture


@contextmanager
def opened(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The photo with its header read, its pixels still on disk. What fails in the block is told as the file's fault.

    Raises:
        PhotoError: as for ``open_photo``.
    """
    try:
        with _open(path, max_pixels) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(path, image.size, max_pixels)
            yield image
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # on damaged bytes the decoders raise a dozen kinds, from SyntaxError to struct.error
        raise _explained(error, path, max_pixels) from error


def can_read_heic() -> bool:
    """Whether the optional package for the photos of iPhones is there."""
    return find_spec("pillow_heif") is not None


def read_exif(image: Image.Image) -> Image.Exif:
    """The photo's EXIF data; empty where there is none or it is broken, which must not cost the photo."""
    try:
        return image.getexif()
    except Exception:  # as many kinds as there are broken cameras
        return Image.Exif()


def orientation(exif: Image.Exif) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where the file says nothing or nonsense."""
    value = exif.get(ExifTags.Base.Orientation, 1)
    return value if value in _UPRIGHT else 1


def _entries(folder: Path) -> list[Path]:
    try:
        if not folder.exists():
            siblings = [path.name for path in folder.absolute().parent.glob("*") if path.is_dir()]
            raise DataError(f"The folder {folder} does not exist.{did_you_mean(folder.name, siblings)}")
        if not folder.is_dir():
            raise DataError(f"{folder} is a file; give the folder that holds the photos.")
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _inventory(folder: Path) -> str:
    """What a folder without photos holds: '2 folders, 3 .txt files'."""
    kinds = Counter(
        "folder" if path.is_dir() else f"{path.suffix.lower() or 'nameless'} file" for path in _entries(folder)
    )
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.most_common(5)) or "nothing"


def _open(path: Path, max_pixels: int) -> Image.Image:
    # By its bytes: phones and messengers often send HEIC under the name .jpg.
    if _what_it_is(path)[0] == "heic":
        return _open_heic(path, max_pixels)
    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; here the caller's limit holds.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=_READERS)


def _open_heic(path: Path, max_pixels: int) -> Image.Image:
    if not can_read_heic():
        raise PhotoError(
            f"{path.name} is a HEIC photo, which needs the package pillow-heif: pip install pillow-heif, "
            "or export the photo as JPEG.",
            "heic",
        )
    import pillow_heif

    # Not register_heif_opener(): that would change what Image.open does for the whole process.
    photo = pillow_heif.open_heif(path)
    if photo.size[0] * photo.size[1] > max_pixels:
        raise _too_large(path, photo.size, max_pixels)
    picture: Image.Image = photo.to_pillow()
    return picture


def _too_large(path: Path, size: tuple[int, int], max_pixels: int) -> PhotoError:
    sides = f" ({size[0]} x {size[1]})" if min(size) > 1 else ""
    return PhotoError(
        f"{path.name} has {size[0] * size[1] / 1e6:.0f} megapixels{sides}; photos of up to {max_pixels / 1e6:g} are "
        "opened. Make it smaller.",
        "too-large",
    )


def _explained(error: Exception, path: Path, max_pixels: int) -> PhotoError:
    """What went wrong with ``path``, in words."""
    if isinstance(error, FileNotFoundError):
        return PhotoError(f"{path} does not exist.", "missing")
    if isinstance(error, Image.DecompressionBombError):  # raised by Pillow before it says how wide and high
        pixels = re.search(r"\d+", str(error))
        return _too_large(path, (int(pixels[0]) if pixels else 2 * max_pixels, 1), max_pixels)
    if isinstance(error, Image.UnidentifiedImageError):
        code, what = _what_it_is(path)
        return PhotoError(
            f"{path.name} is not a photo that can be read: it is {what}. Leave it out or export it as JPEG.", code
        )
    if isinstance(error, OSError) and error.strerror:  # the disk's words; Pillow's own errors have none
        return PhotoError(f"{path.name} cannot be read: {error.strerror.lower()}.")
    reason = (
        "it ends too early" if "truncated" in str(error).lower() else str(error).rstrip(".") or type(error).__name__
    )
    return PhotoError(f"{path.name} is damaged and cannot be read: {reason}. Copy it again or leave it out.")


def _what_it_is(path: Path) -> tuple[str, str]:
    """(code, words) for a file no decoder knows, from its first bytes."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "not-a-photo", "empty"
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
        return "heic", "a HEIC photo"
    if start.startswith(b"%PDF"):
        return "not-a-photo", "a PDF document"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "not-a-photo", "a web page"
    try:
        # Incremental, since byte 512 may cut a character in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) < 512)
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character.isspace() for character in text):
        return "not-a-photo", "text"
    return "unreadable", "in no picture format known here"


def _flatten(image: Image.Image, profile: bytes | None, ground: str) -> Image.Image:
    """Any mode to sRGB, transparency composited onto the colour ``ground``. Always a new picture."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    spaces = _spaces(image.mode)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    picture = _to_srgb(image, profile, spaces)
    if alpha is None:
        return picture
    flat = Image.new("RGB", picture.size, ground)
    flat.paste(picture, mask=alpha)
    return flat


def _spaces(mode: str) -> tuple[str, ...]:
    """Colour spaces, in the words of ICC profiles, that can describe pixels of this mode."""
    if mode == "CMYK":
        return ("CMYK",)
    return ("GRAY", "RGB ") if mode in ("1", "L", "LA", "La") else ("RGB ",)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greyscale to 8 bits, where Pillow's own conversion would clip all above 255 to white."""
    values = np.asarray(image, dtype=np.float32)
    values = np.where(np.isfinite(values), values, np.float32(0))
    if image.mode.startswith("I;16") or image.format == "PNG":
        top = 65535.0
    else:
        peak = max(float(values.max()), 0.0)
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        top = next((top for top in usual if peak <= top), peak)
    return Image.fromarray(np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None, spaces: tuple[str, ...]) -> Image.Image:
    """To RGB, through the embedded profile if it is sound and of one of ``spaces``; else as if it were sRGB already."""
    if image.mode == "LAB":
        return _converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            space = source.profile.xcolor_space
            if space in spaces and not _is_srgb(source):
                return _converted(image.convert({"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]), source)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken profile is common and no reason to refuse the photo
    return image.convert("RGB")


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Pixels that are sRGB already are left alone, bit for bit."""
    name = ImageCms.getProfileDescription(profile).strip().lower()
    return name.startswith("srgb") and "linear" not in name


def _converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    if converted is None:  # only for inPlace=True, which is not asked for; the type says it may be
        raise ValueError("no picture came back from the colour conversion")
    return converted
