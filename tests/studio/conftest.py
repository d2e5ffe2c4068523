"""Photos, and studios whose trainer is a script that trains nothing."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from dora_diffusion.studio import process
from dora_diffusion.studio.studio import Studio

FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three photos; the first lies on its side, as its EXIF says, and knows where it was taken."""
    files = []
    for number in range(3):
        image = Image.linear_gradient("L").resize((80, 60)).convert("RGB")
        image.putpixel((0, 0), (number, 0, 0))
        exif = Image.Exif()
        if number == 0:
            exif[ExifTags.Base.Orientation] = 6
            exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
        files.append(tmp_path / f"photo{number}.jpg")
        image.save(files[-1], exif=exif, comment=b"made by somebody")
    return files


@pytest.fixture
def make_studio(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Makes studios over one home: ``make_studio(mode, seconds_a_step)``. What still trains at the end is ended.

    ``start=False`` leaves it to the test to start it, or to take the scheduler's turns one by one.
    """
    made: list[Studio] = []

    def make(mode: str = "ok", pause_s: float = 0.01, start: bool = True) -> Studio:
        made.append(Studio(tmp_path / "home", [sys.executable, str(FAKE_TRAINER), mode, str(pause_s)]))
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for studio in made:
        studio.close()
    for alive in (tmp_path / "home" / "jobs").glob("*/alive"):
        pid = process.pid_in(alive)
        if process.is_held(alive) and pid is not None:
            process.send(pid, signal.SIGKILL, group=True)
