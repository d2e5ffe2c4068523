"""Trackers get every step; one that is not known is refused by name."""

import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import metrics, run_it, small_config, small_prior

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import MachineError
from dora_diffusion.machine import require_package
from dora_diffusion.training import preview
from dora_diffusion.training.hardware import show_pictures


def test_tensorboard_gets_every_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    run, prior = {"report_to": "tensorboard", "logging_dir": "tracks"}, small_prior(tmp_path / "class", 1)
    run_it(small_config(tmp_path / "run", 3, adapter={"rank": 1}, prior=prior, run=run))
    (file,) = [
        path
        for path in (tmp_path / "run" / "tracks").rglob("events.out.tfevents.*")
        if path.parent.name == "dora_diffusion"
    ]
    events = event_accumulator.EventAccumulator(str(file)).Reload()
    rows = metrics(tmp_path / "run")
    for name in ("loss", "instance_loss", "prior_loss", "lr"):
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in told] == [1, 2, 3]
        assert [value for _, value in told] == pytest.approx([row[name] for row in rows], rel=1e-5)
    assert len(events.Scalars("step_ms")) == 3


@pytest.fixture
def quick_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "PREVIEW", preview.Drawing(num_inference_steps=1, height=64, width=64))


def with_previews(folder: Path, report_to: str) -> TrainConfig:
    run = {"validation_prompt": ["a {trigger} teapot", "a toy"], "num_validation_images": 2, "validation_steps": 1}
    return small_config(folder, 2, adapter={"rank": 1}, run={**run, "report_to": report_to})


def pictures(folder: Path, prompt: int, step: int) -> list[np.ndarray]:
    paths = sorted((folder / "samples").glob(f"step-{step:06d}-{prompt:02d}-*.png"))
    return [np.asarray(Image.open(path)) for path in paths]


@pytest.mark.usefixtures("quick_previews")
def test_tensorboard_gets_the_previews(tmp_path: Path) -> None:
    """The pictures of a prompt lie side by side in one image; each is, pixel by pixel, the file in samples/."""
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    run_it(with_previews(tmp_path / "run", "tensorboard"))
    files = (tmp_path / "run").rglob("events.out.tfevents.*")
    (file,) = (path for path in files if path.parent.name == "dora_diffusion")
    events = event_accumulator.EventAccumulator(str(file), {event_accumulator.IMAGES: 0}).Reload()
    assert events.Tags()["images"] == ["validation/a sks teapot", "validation/a toy"]
    for prompt, title in enumerate(events.Tags()["images"]):
        shown = events.Images(title)
        assert [event.step for event in shown] == [1, 2]
        for event in shown:
            image = np.asarray(Image.open(BytesIO(event.encoded_image_string)).convert("RGB"))
            assert np.array_equal(image, np.concatenate(pictures(tmp_path / "run", prompt, event.step), axis=1))


class FakeTracker:
    """A tracker of accelerate, but for the place it writes to."""

    def __init__(self, name: str):
        self.name = name
        self.told: list[tuple[dict[str, Any], int | None]] = []

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.told.append((values, step))


class FakePictureTracker(FakeTracker):
    """One with a word for pictures, as that of Weights & Biases."""

    def log_images(self, values: dict[str, Any], step: int | None = None) -> None:
        self.told.append((values, step))


def show(tracker: FakeTracker) -> tuple[dict[str, Any], int | None]:
    """Three pictures of two titles, handed over at step 7; what the tracker was told."""
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    accelerator: Any = SimpleNamespace(trackers=[tracker])
    show_pictures(accelerator, {"one": [red, blue], "two": [blue]}, 7)
    (told,) = tracker.told
    return told


def test_a_tracker_with_a_word_for_pictures_gets_them_by_title() -> None:
    values, step = show(FakePictureTracker("wandb"))
    assert step == 7 and {title: len(images) for title, images in values.items()} == {"one": 2, "two": 1}
    assert values["one"][0].getpixel((0, 0)) == (255, 0, 0)


def test_trackio_gets_them_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(Image=lambda image: ("wrapped", image)))  # type: ignore
    values, step = show(FakeTracker("trackio"))
    assert step == 7 and list(values) == ["one/0", "one/1", "two/0"]
    assert all(wrapped == "wrapped" and image.size == (8, 8) for wrapped, image in values.values())


def test_all_is_every_tracker_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_diffusion.training.hardware.find_spec", lambda name: name == "tensorboard" or None)
    run_it(small_config(tmp_path / "run", 1, adapter={"rank": 1}, run={"report_to": "all"}))
    assert list((tmp_path / "run" / "logs").rglob("events.out.tfevents.*"))


def test_no_tracker_writes_nothing(finished_run: Path) -> None:
    assert not (finished_run / "logs").exists()


def test_an_unknown_tracker_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="tensorboard, wandb, trackio and none, got 'tensorbord'"):
        run_it(small_config(tmp_path / "run", run={"report_to": "tensorboard,tensorbord"}))
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_is_not_installed_is_refused_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, extra: str, why: str) -> object:
        return require_package("no_such_tracker_anywhere", extra, why)

    monkeypatch.setattr("dora_diffusion.training.hardware.require_package", absent)
    with pytest.raises(MachineError, match="--report_to wandb.*trackers"):
        run_it(small_config(tmp_path / "run", run={"report_to": "wandb"}))
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_cannot_begin_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As wandb where nobody is logged in."""

    def nobody(*_: object, **__: object) -> None:
        raise RuntimeError("No API key configured. Use 'log in'\nmore")

    monkeypatch.setattr("accelerate.Accelerator.init_trackers", nobody)
    with pytest.raises(MachineError, match=r"tensorboard\): No API key configured. Use 'log in'. Set it up"):
        run_it(small_config(tmp_path / "run", run={"report_to": "tensorboard"}))
