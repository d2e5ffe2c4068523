"""Every fault of a photo is found and named, and photos without it are left in peace."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from dora_diffusion.data import photos as photos_module
from dora_diffusion.data.checks import PhotoReport, check_photos, folder_findings
from dora_diffusion.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "photos"


def made_photo(seed: int, side: int = 640) -> Image.Image:
    """A picture as varied as a photo: large blotches, fine grain."""
    random = np.random.default_rng(seed)
    blotches = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    large = np.asarray(blotches.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = random.normal(0, 25, (side, side, 1)).astype(np.float32)
    return Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8))


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A folder with five good, different photos: real ones, or made here where those are missing."""
    folder = tmp_path / "subject"
    folder.mkdir()
    for index in range(5):
        source = SHARED / "dog6" / f"0{index}.jpg"
        if source.exists():
            shutil.copyfile(source, folder / source.name)
        else:
            made_photo(index).save(folder / source.name, quality=92)
    return folder


def codes(reports: list[PhotoReport]) -> dict[str, list[str]]:
    return {report.path.name: [finding.code for finding in report.findings] for report in reports}


def finding(reports: list[PhotoReport], name: str, code: str) -> tuple[str, str]:
    """(severity, message) of the finding ``code`` about the photo ``name``; fails unless there is exactly one."""
    (report,) = [report for report in reports if report.path.name == name]
    (found,) = [found for found in report.findings if found.code == code]
    return found.severity, found.message


def test_good_photos_have_no_findings(subject: Path) -> None:
    reports = check_photos(subject, 512)
    assert codes(reports) == {f"0{index}.jpg": [] for index in range(5)}
    assert all(report.usable and report.size is not None and min(report.size) >= 512 for report in reports)
    assert folder_findings(reports) == []


@pytest.mark.parametrize("name", ["backpack_dog", "cat2", "clock", "dog6", "rc_car", "vase"])
def test_six_real_subjects_are_good(name: str, tmp_path: Path) -> None:
    folder = SHARED / name
    if not folder.exists():
        folder = tmp_path
        for index in range(6):
            made_photo(100 * len(name) + index).save(folder / f"{index}.jpg")
    reports = check_photos(folder, 512)
    assert len(reports) >= 5
    assert {name: found for name, found in codes(reports).items() if found} == {}


def test_bad_files_are_errors_beside_the_good_ones(subject: Path) -> None:
    (subject / "half.jpg").write_bytes((subject / "00.jpg").read_bytes()[:20000])
    (subject / "text.jpg").write_text("this is a shopping list\n")
    reports = check_photos(subject, 512)
    assert codes(reports)["half.jpg"] == ["unreadable"]
    assert codes(reports)["text.jpg"] == ["not-a-photo"]
    severity, message = finding(reports, "text.jpg", "not-a-photo")
    assert severity == "error"
    assert "text.jpg" in message and "it is text" in message
    assert [report.path.name for report in reports if not report.usable] == ["half.jpg", "text.jpg"]
    by_name = {report.path.name: report for report in reports}
    assert by_name["text.jpg"].size is None
    assert by_name["half.jpg"].size == by_name["00.jpg"].size


def test_too_many_pixels_are_an_error(subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1_000_000
    monkeypatch.setattr(photos_module.opened.__wrapped__, "__defaults__", (limit,))  # type: ignore[attr-defined]
    Image.new("RGB", (1200, 1000)).save(subject / "huge.png")
    severity, message = finding(check_photos(subject, 512), "huge.png", "too-large")
    assert severity == "error"
    assert "1200 x 1000" in message


def test_heic_is_an_error_of_its_photo_only(subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos_module, "can_read_heic", lambda: False)
    (subject / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    reports = check_photos(subject, 512)
    assert "pip install pillow-heif" in finding(reports, "IMG_1.HEIC", "heic")[1]
    assert sum(report.usable for report in reports) == 5


@pytest.mark.parametrize(("resolution", "tiny"), [(200, False), (201, True), (512, True)])
def test_a_small_photo_is_measured_against_the_resolution(subject: Path, resolution: int, tiny: bool) -> None:
    Image.open(subject / "00.jpg").resize((300, 200)).save(subject / "small.png")
    shutil.move(subject / "00.jpg", subject.parent)
    reports = check_photos(subject, resolution)
    assert ("tiny" in codes(reports)["small.png"]) is tiny
    if tiny:
        severity, message = finding(reports, "small.png", "tiny")
        assert severity == "warning"
        assert "300 x 200" in message and str(resolution) in message


@pytest.mark.parametrize(("value", "size"), [(6, (600, 700)), (3, (700, 600))])
def test_a_turned_photo_is_noted_with_its_upright_size(subject: Path, value: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    made_photo(7, 700).resize((700, 600)).save(subject / "turned.jpg", exif=exif)
    reports = check_photos(subject, 512)
    assert codes(reports)["turned.jpg"] == ["rotated"]
    assert finding(reports, "turned.jpg", "rotated")[0] == "note"
    assert [report.size for report in reports if report.path.name == "turned.jpg"] == [size]


def test_a_nonsense_orientation_is_no_turn(subject: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    made_photo(7).save(subject / "odd.jpg", exif=exif)
    assert codes(check_photos(subject, 512))["odd.jpg"] == []


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_place_in_the_exif_is_found(subject: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera maker"  # Pillow writes no EXIF into a PNG when there is nothing but a place
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 24.0), 3: "E", 4: (2.0, 21.0, 7.0)}
    made_photo(8).save(subject / f"paris.{suffix}", exif=exif)
    reports = check_photos(subject, 512)
    assert codes(reports)[f"paris.{suffix}"] == ["location"]
    assert finding(reports, f"paris.{suffix}", "location")[0] == "note"


def test_exif_without_a_place_is_no_location(subject: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera maker"
    exif[0x8825] = {0: b"\2\3\0\0"}  # the version of the GPS block: cameras write it without a place, too
    made_photo(9).save(subject / "nowhere.jpg", exif=exif)
    assert codes(check_photos(subject, 512))["nowhere.jpg"] == []


def test_a_place_in_xmp_is_found(subject: Path) -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="48,51.4N"/></x:xmpmeta>'
    made_photo(10).save(subject / "xmp.webp", xmp=packet)
    assert codes(check_photos(subject, 512))["xmp.webp"] == ["location"]


CHANGES = {
    "copied": lambda picture: picture,
    "halved": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.05),
    "trimmed": lambda picture: picture.crop((4, 4, picture.width - 4, picture.height - 4)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("index", range(5))
def test_the_same_photo_again_is_found_with_its_twin(subject: Path, change: str, index: int) -> None:
    CHANGES[change](Image.open(subject / f"0{index}.jpg")).save(subject / "twin.jpg", quality=40)
    reports = check_photos(subject, 64)
    severity, message = finding(reports, "twin.jpg", "near-duplicate")
    assert severity == "warning"
    assert message.startswith(f"twin.jpg is nearly the same picture as 0{index}.jpg")
    assert [name for name, found in codes(reports).items() if "near-duplicate" in found] == ["twin.jpg"]


def test_plain_pictures_of_different_colours_are_no_duplicates(tmp_path: Path) -> None:
    for name, colour in {"a": "white", "b": "black", "c": "red"}.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    assert not any("near-duplicate" in found for found in codes(check_photos(tmp_path, 32)).values())


def test_a_blurred_photo_is_noted_and_a_soft_background_is_not(subject: Path) -> None:
    sharp = Image.open(subject / "01.jpg")
    soft = sharp.filter(ImageFilter.GaussianBlur(6))
    mixed = soft.copy()
    left, top = sharp.width // 4, sharp.height // 4
    mixed.paste(sharp.crop((left, top, 3 * left, 3 * top)), (left, top))
    (subject / "01.jpg").unlink()
    soft.save(subject / "soft.png")
    reports = check_photos(subject, 512)
    assert codes(reports)["soft.png"] == ["blurred"]
    assert finding(reports, "soft.png", "blurred")[0] == "note"
    mixed.save(subject / "soft.png")
    assert codes(check_photos(subject, 512))["soft.png"] == []


def test_two_pixels_of_blur_are_enough(tmp_path: Path) -> None:
    sources = sorted((SHARED / "backpack_dog").glob("*.jpg"))
    pictures = [Image.open(source).convert("RGB") for source in sources] or [made_photo(index) for index in range(5)]
    for index, picture in enumerate(pictures):
        picture.filter(ImageFilter.GaussianBlur(2)).save(tmp_path / f"{index}.png")
    assert set(map(tuple, codes(check_photos(tmp_path, 512)).values())) == {("blurred",)}


@pytest.mark.parametrize(
    ("count", "expected"), [(1, "few-photos"), (2, "few-photos"), (3, None), (30, None), (31, "many-photos")]
)
def test_the_number_of_photos_is_judged(count: int, expected: str | None) -> None:
    reports = [PhotoReport(Path(f"{index}.jpg"), (512, 512), ()) for index in range(count)]
    found = folder_findings(reports)
    assert [finding.code for finding in found] == ([expected] if expected else [])
    assert all(finding.severity == "warning" for finding in found)


def test_only_usable_photos_are_counted(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / f"{index}.jpg").write_text("text")
    assert [(found.code, found.severity) for found in folder_findings(check_photos(tmp_path, 512))] == [
        ("no-photos", "error")
    ]
    made_photo(0).save(tmp_path / "5.jpg")
    assert "Only one photo" in folder_findings(check_photos(tmp_path, 512))[0].message


def test_only_a_bad_folder_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        check_photos(tmp_path / "gone", 512)
    with pytest.raises(DataError, match="No photos"):
        check_photos(tmp_path, 512)
