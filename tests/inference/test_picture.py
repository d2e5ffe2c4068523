"""Settings in picture files: read back as they were written; what is none of ours, or damaged, is told."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dora_diffusion.errors import DataError
from dora_diffusion.inference import read_settings, save_picture


def carrying(path: Path, text: str, packed: bool = False) -> Path:
    info = PngInfo()
    info.add_text("dora_diffusion", text, zip=packed)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_written_and_read(tmp_path: Path) -> None:
    settings = {"prompt": "ein “Duck”\n日本", "seed": 3, "width": 8, "height": 8, "strength": 0.5}
    assert read_settings(save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", settings)) == settings


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", "null", "[" * 100_000, "9" * 10_000], ids=range(7))
def test_damaged_settings_are_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="are damaged"):
        read_settings(carrying(tmp_path / "a.png", text))


def test_what_is_no_picture_of_ours_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_settings(carrying(tmp_path / "bomb.png", "x" * 20_000_000, packed=True))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_settings(tmp_path / "text.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(DataError, match="carries no settings"):
        read_settings(tmp_path / "plain.png")
