"""How many class images are made goes from the trainer's event through its status file to the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from dora_diffusion.studio.board import _class_images
from dora_diffusion.training.events import ClassImages, RunStarted
from dora_diffusion.training.listeners import StatusFile


def test_the_count_is_told_until_the_steps_begin(tmp_path: Path) -> None:
    tell = StatusFile(tmp_path, 120)

    def seen() -> tuple[int, int] | None:
        return _class_images(json.loads((tmp_path / "status.json").read_text()))

    tell(ClassImages(4, 12))
    assert seen() == (4, 12)
    tell(ClassImages(12, 12))
    assert seen() is None, "nothing is missing"
    tell(ClassImages(4, 12))
    tell(RunStarted(tmp_path, 0, 120, {}))
    assert seen() is None


@pytest.mark.parametrize("said", [None, 4, {}, {"done": 4}, {"done": "4", "total": 12}, {"done": -1, "total": 2}])
def test_nonsense_is_no_count(said: Any) -> None:
    assert _class_images({"class_images": said}) is None and _class_images({}) is None
