"""Photos come out as upright sRGB, pixel for pixel; what is no photo is refused by name."""

import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dora_diffusion.data import photos
from dora_diffusion.data.photos import PhotoError, find_photos, list_photos, open_photo
from dora_diffusion.errors import DataError

RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 90)


def corners() -> Image.Image:
    """Six by four pixels, each quarter in its own colour, so that every turn and mirror looks different."""
    pixels = np.empty((4, 6, 3), np.uint8)
    pixels[:2, :3], pixels[:2, 3:], pixels[2:, :3], pixels[2:, 3:] = RED, GREEN, BLUE, GREY
    return Image.fromarray(pixels)


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def png_header(width: int, height: int, *, body: bytes = b"") -> bytes:
    """A PNG of 1-bit grey, written by hand: any size without the memory for it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def real_photo(tmp_path: Path) -> Path:
    """A photo of the shared test set, or a picture made here where that is missing."""
    shared = Path(__file__).parents[3] / "shared" / "photos" / "dog6" / "00.jpg"
    if shared.exists():
        return shared
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((768, 768)).save(tmp_path / "made.jpg")
    return tmp_path / "made.jpg"


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

# The stored pixels that look like ``corners`` once the viewer has obeyed the orientation (EXIF 2.32, tag 0x0112).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("value", STORED)
def test_every_orientation_comes_out_upright_to_the_pixel(tmp_path: Path, value: int, suffix: str) -> None:
    upright = np.asarray(corners())
    path = tmp_path / f"photo.{suffix}"
    stored = Image.fromarray(np.ascontiguousarray(STORED[value](upright)))
    stored.save(path, exif=with_orientation(value), lossless=True)  # only WebP knows, and needs, lossless
    np.testing.assert_array_equal(np.asarray(open_photo(path)), upright)


def test_a_turned_jpeg_is_the_turn_of_the_same_jpeg(tmp_path: Path) -> None:
    plain = Image.open(real_photo(tmp_path))
    plain.resize((160, 120)).save(tmp_path / "flat.jpg", quality=95)
    plain.resize((160, 120)).save(tmp_path / "turned.jpg", quality=95, exif=with_orientation(6))
    flat, turned = np.asarray(open_photo(tmp_path / "flat.jpg")), np.asarray(open_photo(tmp_path / "turned.jpg"))
    np.testing.assert_array_equal(turned, np.rot90(flat, -1))


@pytest.mark.parametrize("value", [0, 9, 40000])
def test_a_nonsense_orientation_is_ignored(tmp_path: Path, value: int) -> None:
    corners().save(tmp_path / "photo.png", exif=with_orientation(value))
    np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / "photo.png")), np.asarray(corners()))


def test_broken_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    corners().save(tmp_path / "photo.png", exif=b"Exif\0\0this is no TIFF header")
    np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / "photo.png")), np.asarray(corners()))


def test_no_metadata_comes_along(tmp_path: Path) -> None:
    exif = with_orientation(1)
    exif[0x8825] = {2: (48.0, 51.0, 0.0)}
    corners().save(tmp_path / "photo.png", exif=exif, icc_profile=SRGB, dpi=(72, 72))
    result = open_photo(tmp_path / "photo.png")
    assert type(result) is Image.Image
    assert result.info == {}
    result.save(tmp_path / "again.png")
    assert b"iCCP" not in (tmp_path / "again.png").read_bytes()
    assert dict(Image.open(tmp_path / "again.png").getexif()) == {}


def test_a_real_photo_is_what_pillow_reads(tmp_path: Path) -> None:
    path = real_photo(tmp_path)
    np.testing.assert_array_equal(np.asarray(open_photo(path)), np.asarray(Image.open(path).convert("RGB")))


REFUSE_AND_MEASURE = """
import resource, sys
from pathlib import Path
from dora_diffusion.data.photos import PhotoError, open_photo
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_photo(Path(sys.argv[1]))
except PhotoError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error.code)
"""


@pytest.mark.parametrize("size", [(20000, 10000), (12000, 9000)], ids=["200 MP", "108 MP"])
def test_a_giant_is_refused_from_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    rows = size[1] * (1 + (size[0] + 7) // 8)
    path = tmp_path / "giant.png"  # whole and valid: opened without care, it would decode
    path.write_bytes(png_header(*size, body=zlib.compress(b"\0" * rows, 1)))
    start = time.perf_counter()
    with pytest.raises(PhotoError, match="giant.png has .* megapixels") as refused:
        open_photo(path)
    assert time.perf_counter() - start < 1.0
    assert refused.value.code == "too-large"
    assert f"{size[0] * size[1] // 1_000_000} megapixels" in str(refused.value)
    assert "up to 100 " in str(refused.value)
    done = subprocess.run([sys.executable, "-c", REFUSE_AND_MEASURE, path], capture_output=True, text=True, check=True)
    grown_kib, code = done.stdout.split()
    assert code == "too-large"
    assert int(grown_kib) < 20 * 1024  # decoded it takes 200 MB


def test_between_pillows_limit_and_ours_nothing_is_said(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    size = (10000, 9500)
    path = tmp_path / "large.png"
    path.write_bytes(png_header(*size, body=zlib.compress(b"\xff" * (size[1] * 1251), 1)))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with photos.opened(path) as image:
            assert image.size == size
    assert told == []
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    corners().save(tmp_path / "photo.png")
    assert open_photo(tmp_path / "photo.png", max_pixels=24).size == (6, 4)
    with pytest.raises(PhotoError, match=r"\(6 x 4\)"):
        open_photo(tmp_path / "photo.png", max_pixels=23)


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        ("ein Text, kein Bild: äöü\n" * 40, "not-a-photo", "it is text"),
        (b"", "not-a-photo", "it is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not-a-photo", "it is a web page"),
        (b"%PDF-1.7\n\xff\xfe", "not-a-photo", "it is a PDF document"),
        (bytes(range(128, 256)) * 4, "unreadable", "no picture format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not-a-photo", "it is text"),
    ],
    ids=["text", "empty", "html", "pdf", "noise", "postscript"],
)
def test_what_is_no_photo_is_told_by_name(tmp_path: Path, content: str | bytes, code: str, word: str) -> None:
    path = tmp_path / "photo3.jpg"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=f"photo3.jpg .*{word}") as refused:
        open_photo(path)
    assert isinstance(refused.value, PhotoError)
    assert refused.value.code == code


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_half_a_photo_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"half.{suffix}"
    Image.open(real_photo(tmp_path)).resize((256, 256)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PhotoError, match=f"half.{suffix} ") as refused:
        open_photo(path)
    assert refused.value.code == "unreadable"


def test_a_truncated_jpeg_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    path.write_bytes(real_photo(tmp_path).read_bytes()[:20000])
    with pytest.raises(PhotoError, match="half.jpg is damaged and cannot be read: it ends too early. Copy it again"):
        open_photo(path)


def test_bytes_flipped_anywhere_give_a_picture_or_a_data_error(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for suffix in ("jpg", "png", "webp", "tif", "gif"):
        path = tmp_path / f"photo.{suffix}"
        corners().resize((60, 40)).save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[random.integers(0, len(broken), 4)] = random.integers(0, 256, 4)
            path.write_bytes(broken.tobytes())
            try:
                assert open_photo(path).mode == "RGB"
            except DataError as error:
                assert path.name in str(error)


def test_a_missing_photo_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="does not exist") as refused:
        open_photo(tmp_path / "gone.jpg")
    assert refused.value.code == "missing"
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(PhotoError, match="folder.jpg cannot be read: is a directory"):
        open_photo(tmp_path / "folder.jpg")


def test_an_error_survives_the_way_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(PhotoError("photo.jpg is empty", "not-a-photo")))
    assert (str(error), error.code) == ("photo.jpg is empty", "not-a-photo")


def test_photos_are_listed_by_name_without_what_is_none(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "c.webp",
        ".hidden.jpg",
        "._c.jpg",
        "notes.txt",
        "d.Tiff",
        "e.bmp",
        "f.jpeg",
        "g.tif",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    names = [path.name for path in list_photos(tmp_path)]
    assert names == ["a.png", "b.JPG", "c.webp", "d.Tiff", "e.bmp", "f.jpeg", "g.tif"]


def test_a_missing_folder_is_told_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="phtos does not exist. Did you mean 'photos'?"):
        list_photos(tmp_path / "phtos")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    corners().save(tmp_path / "photo.png")
    with pytest.raises(DataError, match="photo.png is a file; give the folder"):
        list_photos(tmp_path / "photo.png")


def test_a_folder_without_photos_tells_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it holds nothing"):
        list_photos(tmp_path)
    (tmp_path / "2024").mkdir()
    for name in ("a.txt", "b.txt", "c.CR2", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="2 .txt files") as refused:
        list_photos(tmp_path)
    assert "1 folder," in str(refused.value)
    assert "1 .cr2 file" in str(refused.value)
    assert ".jpg .jpeg .png .webp" in str(refused.value)


def heic_bytes() -> bytes:
    return struct.pack(">I", 24) + b"ftypheic" + b"\0" * 100


@pytest.mark.parametrize("others", [0, 2])
def test_heic_without_its_package_is_refused_and_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr(photos, "can_read_heic", lambda: False)
    (tmp_path / "IMG_1.HEIC").write_bytes(heic_bytes())
    (tmp_path / "IMG_2.heif").write_bytes(heic_bytes())
    for index in range(others):
        corners().save(tmp_path / f"{index}.png")
    assert len(find_photos(tmp_path)) == 2 + others
    with pytest.raises(DataError, match="IMG_1.HEIC and 1 more.*pip install pillow-heif"):
        list_photos(tmp_path)


@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg"])
def test_heic_under_any_name_asks_for_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(photos, "can_read_heic", lambda: False)
    (tmp_path / name).write_bytes(heic_bytes())
    with pytest.raises(PhotoError, match=f"{name} is a HEIC photo.*pip install pillow-heif") as refused:
        open_photo(tmp_path / name)
    assert refused.value.code == "heic"


class PretendHeif:
    """Stands in for pillow_heif: one photo, and a record of whether it was decoded."""

    def __init__(self, size: tuple[int, int]):
        self.size, self.decoded = size, False

    def open_heif(self, path: Path) -> "PretendHeif":
        return self

    def to_pillow(self) -> Image.Image:
        self.decoded = True
        return corners()


def test_heic_is_read_where_its_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "can_read_heic", lambda: True)
    monkeypatch.setitem(sys.modules, "pillow_heif", PretendHeif((6, 4)))
    (tmp_path / "photo.heic").write_bytes(heic_bytes())
    assert list_photos(tmp_path) == [tmp_path / "photo.heic"]
    np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / "photo.heic")), np.asarray(corners()))


def test_a_giant_heic_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PretendHeif((20000, 10000))
    monkeypatch.setattr(photos, "can_read_heic", lambda: True)
    monkeypatch.setitem(sys.modules, "pillow_heif", reader)
    (tmp_path / "photo.heic").write_bytes(heic_bytes())
    with pytest.raises(PhotoError, match=r"200 megapixels \(20000 x 10000\)"):
        open_photo(tmp_path / "photo.heic")
    assert not reader.decoded
