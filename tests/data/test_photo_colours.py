"""Every kind of pixel comes out as sRGB: transparency, palettes, 16 bits, grey, CMYK, embedded profiles."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dora_diffusion.data.photos import open_photo

RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 90)


def corners() -> Image.Image:
    """Six by four pixels, each quarter in its own colour."""
    pixels = np.empty((4, 6, 3), np.uint8)
    pixels[:2, :3], pixels[:2, 3:], pixels[2:, :3], pixels[2:, 3:] = RED, GREEN, BLUE, GREY
    return Image.fromarray(pixels)


def profile(space: bytes = b"RGB ", name: bytes = b"test", gamma: float = 1.0) -> bytes:
    """A small colour profile written by hand (ICC.1:2010, version 2): sRGB's primaries or grey, with another curve."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * 79
    parts = {b"desc": description + b"\0" * (-len(description) % 4), b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    if space == b"GRAY":
        parts[b"kTRC"] = curve
    else:
        parts |= {b"rXYZ": xyz(0.4361, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971)}
        parts |= {b"bXYZ": xyz(0.1431, 0.0606, 0.7141), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    offset, table, data = 128 + 4 + 12 * len(parts), struct.pack(">I", len(parts)), b""
    for tag, part in parts.items():
        table += tag + struct.pack(">II", offset + len(data), len(part))
        data += part
    head = b"\0" * 4 + struct.pack(">I", 0x02100000) + b"mntr" + space + b"XYZ " + b"\0" * 12 + b"acsp" + b"\0" * 28
    head += fixed(0.9642, 1.0, 0.8249)
    whole = head + b"\0" * (124 - len(head)) + table + data
    return struct.pack(">I", len(whole) + 4) + whole


def test_transparency_is_composited_onto_white(tmp_path: Path) -> None:
    alpha = Image.fromarray(np.array([[0, 0, 0, 255, 255, 255]] * 2 + [[51] * 6] * 2, np.uint8))
    picture = corners()
    picture.putalpha(alpha)
    picture.save(tmp_path / "photo.png")
    result = np.asarray(open_photo(tmp_path / "photo.png")).astype(int)
    assert (result[0, 0] == 255).all()
    assert (result[0, 5] == GREEN).all()
    np.testing.assert_allclose(result[3, 0], 0.2 * np.array(BLUE) + 0.8 * 255, atol=1)


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    picture = corners().quantize(4)
    red = picture.getpixel((0, 0))
    picture.save(tmp_path / "photo.png", transparency=red)
    assert Image.open(tmp_path / "photo.png").mode == "P"
    result = np.asarray(open_photo(tmp_path / "photo.png"))
    assert (result[:2, :3] == 255).all()
    np.testing.assert_array_equal(result[2:], np.asarray(corners())[2:])


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 1, 128], [200, 254, 255]], np.uint16)
    Image.fromarray(levels * 257).save(tmp_path / "photo.png")
    result = np.asarray(open_photo(tmp_path / "photo.png"))
    np.testing.assert_array_equal(result, np.repeat(levels[..., None], 3, 2))


def test_a_dark_16_bit_picture_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "photo.png")
    assert np.asarray(open_photo(tmp_path / "photo.png")).max() == 1


def test_float_tiff_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)).save(tmp_path / "photo.tif")
    assert np.asarray(open_photo(tmp_path / "photo.tif"))[0, :, 0].tolist() == [0, 128, 255, 0]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_pictures_become_rgb(tmp_path: Path, mode: str) -> None:
    black_and_white = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert(mode)
    black_and_white.save(tmp_path / "photo.png")
    result = open_photo(tmp_path / "photo.png")
    assert result.mode == "RGB"
    assert np.asarray(result)[..., 1].tolist() == [[0, 255], [255, 0]]


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK").save(tmp_path / "photo.jpg", quality=100)
    assert Image.open(tmp_path / "photo.jpg").mode == "CMYK"
    result = open_photo(tmp_path / "photo.jpg")
    np.testing.assert_allclose(np.asarray(result)[8, 8], (255, 0, 0), atol=3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_embedded_profile_is_obeyed(tmp_path: Path, mode: str) -> None:
    # linear 55/255 = 0.2157 is 0.502 in sRGB
    Image.new("RGB", (4, 4), (55, 55, 55)).convert(mode).save(tmp_path / "photo.png", icc_profile=profile())
    np.testing.assert_allclose(np.asarray(open_photo(tmp_path / "photo.png"))[0, 0], (128, 128, 128), atol=2)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_obeyed(tmp_path: Path, mode: str) -> None:
    Image.new("L", (4, 4), 55).convert(mode).save(tmp_path / "photo.png", icc_profile=profile(b"GRAY"))
    np.testing.assert_allclose(np.asarray(open_photo(tmp_path / "photo.png"))[0, 0], (128, 128, 128), atol=2)


def test_pixels_in_srgb_stay_bit_for_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    # sRGB as some vendors write it: the name says sRGB, the curve is a plain power
    vendor = profile(name=b"sRGB IEC61966-2.1", gamma=2.2)
    for name, embedded in {
        "vendor": vendor,
        "exact": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png", icc_profile=embedded)
        np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / f"{name}.png")), pixels)


@pytest.mark.parametrize("broken", [b"no profile at all", profile()[:200]])
def test_a_broken_profile_is_ignored(tmp_path: Path, broken: bytes) -> None:
    corners().save(tmp_path / "photo.png", icc_profile=broken)
    np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / "photo.png")), np.asarray(corners()))


def test_a_grey_profile_does_not_take_the_colours_away(tmp_path: Path) -> None:
    corners().save(tmp_path / "photo.png", icc_profile=profile(b"GRAY"))
    np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / "photo.png")), np.asarray(corners()))


def test_an_rgb_profile_on_cmyk_is_ignored(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 0, 0, 200)).save(tmp_path / "photo.jpg", quality=100, icc_profile=profile())
    np.testing.assert_allclose(np.asarray(open_photo(tmp_path / "photo.jpg"))[8, 8], (55, 55, 55), atol=2)
