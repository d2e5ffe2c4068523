"""Who has taught nothing yet sees what teaching is: photos and what came of them, served from the media folder only."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from fake_studio import FakeStudio
from PIL import Image

pytest.importorskip("gradio")

from dora_diffusion.studio.samples import sample_photos  # noqa: E402 - after the check for gradio
from dora_diffusion.studio.ui.first_run import DRAWN, SAMPLE, SCENES, first_run_html  # noqa: E402


@pytest.fixture
def studio(tmp_path: Path) -> Any:
    return FakeStudio(tmp_path / "home")


def shown(html: str) -> list[Path]:
    return [Path(unquote(urlsplit(link).path).partition("file=")[2]) for link in re.findall('src="([^"]*)"', html)]


def test_photos_and_what_was_drawn_lie_in_the_media_folder(studio: Any) -> None:
    html = first_run_html(studio)
    files = shown(html)
    assert len(files) == 3 + len(SCENES) and len(set(files)) == len(files)
    for file in files:
        assert file.is_relative_to(studio.home.media)
        with Image.open(file) as picture:
            assert min(picture.size) >= 128
    told = re.findall('alt="([^"]*)"', html)
    assert len(told) == len(files) and all(SAMPLE in words for words in told)
    assert all(words in html for words in SCENES.values())
    assert first_run_html(studio) == html, "a second look changes nothing"


def test_it_is_gone_once_there_is_a_subject(studio: Any) -> None:
    studio.subjects.create_from_sample("robot")
    assert first_run_html(studio) == ""


def test_the_drawn_pictures_are_small_and_no_photos(studio: Any) -> None:
    drawn = sorted(DRAWN.glob("*"))
    assert [file.stem for file in drawn] == sorted(SCENES)
    assert all(file.stat().st_size <= 15_000 for file in drawn)
    assert not {photo.stem for photo in sample_photos(SAMPLE)} & set(SCENES), "none of these places was in a photo"
