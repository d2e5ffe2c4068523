"""A run that was stopped, or whose newest checkpoint is damaged, goes on."""

from pathlib import Path

import pytest
from PIL import Image
from training_runs import small_config

from dora_diffusion.errors import ConfigError, TrainingError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.training import train
from dora_diffusion.training.events import ClassImages, Event, Note, PreviewReady

PRIOR = {
    "with_prior_preservation": True,
    "num_class_images": 4,
    "class_images_steps": 2,
    "sample_batch_size": 1,
}


def test_a_stop_while_class_images_are_drawn_keeps_those_made(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", prior={**PRIOR, "class_data_dir": tmp_path / "class"})
    made: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, ClassImages):
            made.append(event.done)

    result = train(config, listen, lambda: bool(made) and made[-1] >= 2)
    assert result.stopped
    assert result.step == 0
    assert not (tmp_path / "run" / WEIGHTS_NAME).exists()
    assert len(list((tmp_path / "class").glob("generated-*/*.png"))) == 2
    made.clear()
    assert train(config, listen).step == 2
    assert made[0] == 2, "the images made before the stop were made again"


def test_own_class_images_that_changed_are_refused_on_resume(tmp_path: Path) -> None:
    own = tmp_path / "class"
    own.mkdir()
    for k in range(4):
        Image.new("RGB", (64, 64), (60 * k, 90, 30)).save(own / f"{k}.png")
    settings = {**PRIOR, "class_data_dir": own}
    train(small_config(tmp_path / "run", 2, prior=settings))
    Image.new("RGB", (64, 64), (1, 2, 3)).save(own / "0.png")
    with pytest.raises(TrainingError, match="class images"):
        train(small_config(tmp_path / "run", 4, prior=settings))


def test_the_same_photos_by_another_path_are_the_same_run(
    tmp_path: Path, subject_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_config(tmp_path / "run", 1))
    monkeypatch.chdir(subject_photos.parent)
    again = small_config(tmp_path / "run", 2, data={"instance_data_dir": Path(subject_photos.name)})
    assert train(again).step == 2


def test_previews_are_drawn_at_the_end_without_being_asked_for_on_the_way(tmp_path: Path) -> None:
    heard: list[Event] = []
    run = {"validation_prompt": ["a photo of sks teapot"], "num_validation_images": 1}
    train(small_config(tmp_path / "run", 2, run=run), heard.append)
    (ready,) = [event for event in heard if isinstance(event, PreviewReady)]
    assert ready.step == 2
    assert f"samples/{ready.paths[0].name}" in (tmp_path / "run" / "README.md").read_text()


def test_a_warm_up_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="constant_with_warmup"):
        small_config(tmp_path / "run", optim={"lr_warmup_steps": 5, "lr_scheduler": "constant"})


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("adapter.safetensors", "flipped"),
        ("optimizer.safetensors", "gone"),
        ("trainer.json", "cut"),
        ("manifest.json", "gone"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    whole = train(small_config(tmp_path / "whole", 4)).adapter.read_bytes()
    run = {"checkpointing_steps": 1, "checkpoints_total_limit": None}
    train(small_config(tmp_path / "run", 3, run=run))
    path = tmp_path / "run" / "checkpoint-3" / file
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "flipped":  # one bit of one weight: only the checksum tells
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.unlink()
    heard: list[Event] = []
    result = train(small_config(tmp_path / "run", 4, run=run), heard.append)
    notes = [event.message for event in heard if isinstance(event, Note)]
    assert any("checkpoint-3 is damaged" in note for note in notes)
    assert "Resuming from checkpoint-2." in notes
    assert result.adapter.read_bytes() == whole


def test_nothing_but_damaged_checkpoints_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    train(small_config(tmp_path / "run", 2))
    path = tmp_path / "run" / "checkpoint-2" / "optimizer.safetensors"
    path.write_bytes(b"cut")
    before = (tmp_path / "run" / WEIGHTS_NAME).read_bytes()
    with pytest.raises(TrainingError, match="No checkpoint of this run is whole .*checkpoint-2.*--overwrite"):
        train(small_config(tmp_path / "run", 3))
    assert (tmp_path / "run" / WEIGHTS_NAME).read_bytes() == before
