"""What is said about each photo, by the numbers that a page shows."""

import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFilter

from dora_diffusion.studio import photo_check
from dora_diffusion.studio.photo_check import mentions, sentences
from dora_diffusion.studio.studio import Studio

TEAPOT = Path(__file__).parents[2] / "samples" / "subjects" / "teapot"


def store(folder: Path) -> None:
    """Four photos: sharp, the same again in half the size, blurred, small."""
    folder.mkdir()
    sharp, other, third = sorted(TEAPOT.glob("*.jpg"))[:3]
    shutil.copy(sharp, folder / "01.jpg")
    with Image.open(sharp) as image:
        image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(folder / "02.jpg", quality=95)
    with Image.open(other) as image:
        image.filter(ImageFilter.GaussianBlur(8)).save(folder / "03.jpg")
    with Image.open(third) as image:
        image.resize((50, 50)).save(folder / "10.jpg")


def test_findings_name_photos_by_number(tmp_path: Path) -> None:
    store(tmp_path / "photos")
    found = photo_check.check(tmp_path / "photos", 64)
    assert [code for code, _ in found["01.jpg"]] == []
    assert [code for code, _ in found["02.jpg"]] == ["near-duplicate"]
    assert sentences(found["02.jpg"])[0].startswith("Photo 2 is nearly the same picture as photo 1")
    assert [code for code, _ in found["03.jpg"]] == ["blurred"]
    assert [code for code, _ in found["10.jpg"]] == ["tiny"]
    assert "Photo 10 is 50 x 50 pixels" in sentences(found["10.jpg"])[0]
    assert mentions(found, "01.jpg") and not mentions(found, "10.jpg") and not mentions(found, "02.jpg")


def test_no_photos_have_no_findings(tmp_path: Path) -> None:
    assert photo_check.check(tmp_path, 64) == {} and photo_check.check(tmp_path / "none", 64) == {}


def test_what_is_said_about_the_twin_of_a_removed_photo_goes(make_studio: Callable[..., Studio]) -> None:
    studio = make_studio(start=False)
    photo = sorted(TEAPOT.glob("*.jpg"))[0]
    larger = studio.home.tmp / "larger.png"
    with Image.open(photo) as image:
        image.resize((image.width * 2, image.height * 2)).save(larger)
    id = studio.subjects.create([photo, larger], "", "teapot").id
    notes = studio.subjects.photos(id)
    assert notes[0].findings == () and any("photo 1" in words for words in notes[1].findings)
    studio.subjects.remove_photo(id, "01.jpg")
    (left,) = studio.subjects.photos(id)
    assert left.name == "02.jpg" and not any("photo 1" in words for words in left.findings)
