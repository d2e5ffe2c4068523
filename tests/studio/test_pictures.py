"""Pictures are files with their settings inside, drawn by one kept pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dora_diffusion.errors import StudioError
from dora_diffusion.inference import read_settings
from dora_diffusion.studio.pictures import Pictures
from dora_diffusion.studio.subjects import Subject

MakeStudio = Callable[..., Any]


class FakePipeline:
    """Draws grey squares and notes what was asked of it."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.asked: list[Any] = []

    def switch(self, adapter: Path | None, strength: float = 1.0) -> None:
        self.asked.append((adapter, strength))

    def draw(self, *, seed: int = 0, num_images: int = 1, on_step: Any = None, **settings: Any) -> list[Image.Image]:
        self.asked.append({"seed": seed, "num_images": num_images, **settings})
        if on_step is not None:
            on_step(num_images, num_images)
        return [Image.new("RGB", (32, 16), (seed + offset,) * 3) for offset in range(num_images)]


@pytest.fixture
def pipelines() -> list[FakePipeline]:
    """Every pipeline that was made."""
    return []


@pytest.fixture
def pictures(tmp_path: Path, pipelines: list[FakePipeline]) -> Pictures:
    def open_pipeline(base: str) -> FakePipeline:
        pipelines.append(FakePipeline(base))
        return pipelines[-1]

    return Pictures(tmp_path / "media", open_pipeline)


@pytest.fixture
def trained(make_studio: MakeStudio, photos: list[Path]) -> Subject:
    studio = make_studio()
    subject: Subject = studio.subject(studio.create_subject(photos, "duck", "sks", 60))
    subject.run_folder.mkdir()
    (subject.run_folder / "pytorch_lora_weights.safetensors").touch()
    return subject


ORDER = {"prompt": "a photo of sks duck", "strength": 0.8, "seed": 7, "num_images": 2}


def test_pictures_are_files_with_settings(
    pictures: Pictures, pipelines: list[FakePipeline], trained: Subject, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    files = pictures.draw(trained, **ORDER, on_step=lambda step, total: steps.append((step, total)))
    assert [file.name for file in files] == ["00001-seed7.png", "00002-seed8.png"]
    assert pipelines[0].asked[0] == (trained.adapter, 0.8)
    assert steps == [(2, 2)]
    remembered = read_settings(files[1])
    assert remembered["seed"] == 8 and remembered["prompt"] == ORDER["prompt"] and remembered["strength"] == 0.8
    assert (remembered["width"], remembered["height"]) == (32, 16)
    assert str(tmp_path) not in files[1].read_bytes().decode(
        "latin-1"
    )  # no path of this machine in a picture people share


def test_new_pictures_come_first_and_none_is_overwritten(pictures: Pictures, trained: Subject) -> None:
    first = pictures.draw(trained, **ORDER)
    second = pictures.draw(trained, **ORDER)
    assert pictures.of(trained.id) == [*second[::-1], *first[::-1]]


def test_the_pipeline_is_made_at_the_first_picture_and_kept(
    pictures: Pictures, pipelines: list[FakePipeline], trained: Subject
) -> None:
    assert pipelines == []
    pictures.draw(trained, **ORDER)
    pictures.draw(trained, **ORDER)
    assert [pipeline.base for pipeline in pipelines] == ["toybox"]
    pictures.release()
    pictures.draw(trained, **ORDER)
    assert len(pipelines) == 2


def test_no_picture_before_the_training(pictures: Pictures, make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.subject(studio.create_subject(photos, "duck", "sks", 60))
    with pytest.raises(StudioError, match="not trained yet"):
        pictures.draw(subject, **ORDER)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prompt": "  "}, "Write what"),
        ({"prompt": "x" * 1001}, "at most 1000"),
        ({"strength": 1.6}, "between 0 and 1.5, got 1.6"),
        ({"strength": float("nan")}, "between 0 and 1.5"),
        ({"seed": -1}, "got -1"),
        ({"num_images": 9}, "got 9"),
    ],
)
def test_orders_are_checked(pictures: Pictures, trained: Subject, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(StudioError, match=says):
        pictures.draw(trained, **{**ORDER, **wrong})
    assert pictures.of(trained.id) == []
