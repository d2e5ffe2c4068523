"""Whose folder it is, what starting again means, and that nobody's work is lost to it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mortal import life_of
from PIL import Image
from training_runs import Heard, adapter_bytes, contents, metrics, run_it, small_config

from dora_diffusion.cli import main
from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import DataError, DoraError, TrainingError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training.events import Finished, Note, StepDone
from dora_diffusion.training.listeners import ProgressBar
from dora_diffusion.training.run_folder import RunFolder

Copy = Callable[[str], Path]

IDENTITY: list[tuple[str, str, Any]] = [
    ("data", "instance_prompt", "a photo of zwx teapot"),
    ("data", "resolution", 72),
    ("data", "random_flip", True),
    ("adapter", "kind", "lora"),
    ("adapter", "rank", 5),
    ("adapter", "train_text_encoder", True),
    ("prior", "with_prior_preservation", True),
    ("optim", "learning_rate", 2e-3),
    ("optim", "lr_scheduler", "cosine"),
    ("run", "seed", 1),
    ("run", "train_batch_size", 2),
    ("run", "gradient_accumulation_steps", 2),
]
FREE: list[tuple[str, str, Any]] = [
    ("data", "cache_latents", False),
    ("prior", "sample_batch_size", 1),
    ("run", "checkpointing_steps", 7),
    ("run", "gradient_checkpointing", True),
    ("run", "validation_prompt", ["sks teapot"]),
    ("run", "report_to", "tensorboard"),
]


def everything_but(folder: Path, *names: str) -> dict[str, tuple[bytes, int]]:
    return {name: file for name, file in contents(folder).items() if name not in names}


# ------------------------------------------------------------------------------------------------- somebody else's
# folder
def test_a_folder_of_somebody_else_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("do not lose me")
    before = contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(
            TrainingError, match=r"thesis is not empty and holds no run of ours \(it has chapter\.tex\)"
        ):
            run_it(small_config(tmp_path / "thesis", run={"overwrite": overwrite}))
    assert contents(tmp_path) == before


def test_the_command_line_leaves_it_untouched_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chapter.tex").write_text("do not lose me")
    before = contents(tmp_path)
    arguments = ["--output_dir", str(tmp_path), "--instance_data_dir", "anywhere", "--class_noun", "cat"]
    assert main(["train", *arguments]) == 2
    assert "holds no run of ours" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(DoraError, match=f"{tmp_path / 'run'} is a file"):
        RunFolder(small_config(tmp_path / "run"))


@pytest.mark.parametrize("left", [".config.yaml.writing", ".status.json.writing", "status.json"])
def test_what_a_process_leaves_that_is_killed_as_it_starts_is_no_obstacle(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("{")
    assert not RunFolder(small_config(tmp_path)).is_finished()


def test_nothing_is_written_before_the_photos_are_known_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run_it(small_config(tmp_path / "run", data={"instance_data_dir": tmp_path / "nowhere"}))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- another run's folder
@pytest.mark.parametrize(("group", "name", "value"), IDENTITY, ids=[name for _, name, _ in IDENTITY])
def test_a_run_of_other_settings_is_refused_by_their_names(
    finished_run: Path, group: str, name: str, value: object
) -> None:
    before = contents(finished_run)
    with pytest.raises(TrainingError, match=rf"holds a run with other settings: {name} is \S+ there and .* now\. Give"):
        run_it(small_config(finished_run, 9, **{group: {name: value}}))
    assert contents(finished_run) == before


def test_all_that_differs_is_told_at_once(finished_run: Path) -> None:
    with pytest.raises(TrainingError, match="rank is 4 there and 8 now; seed is 0 there and 3 now"):
        RunFolder(small_config(finished_run, adapter={"rank": 8}, run={"seed": 3}))


@pytest.mark.parametrize(("group", "name", "value"), FREE, ids=[name for _, name, _ in FREE])
def test_what_does_not_shape_the_adapter_may_change(finished_run: Path, group: str, name: str, value: object) -> None:
    assert RunFolder(small_config(finished_run, 3, **{group: {name: value}})).is_finished()


@pytest.mark.parametrize("change", ["another", "one more", "one less"])
def test_other_photos_are_refused(tmp_path: Path, subject_photos: Path, change: str) -> None:
    photos = shutil.copytree(subject_photos, tmp_path / "photos")
    config = small_config(tmp_path / "run", 2, data={"instance_data_dir": photos}, adapter={"rank": 1})
    run_it(config, stop_after=1)
    before = adapter_bytes(tmp_path / "run"), contents(tmp_path / "run" / "checkpoint-1")
    first = photos / "studio.jpg"
    if change == "another":
        shutil.copy(subject_photos.parent / "mug" / first.name, first)
    elif change == "one more":
        shutil.copy(first, photos / "06.jpg")
    else:
        first.unlink()
    told = {"another": "studio.jpg was changed", "one more": "06.jpg is new", "one less": "studio.jpg is gone"}[change]
    with pytest.raises(TrainingError, match=f"checkpoint-1 cannot be resumed: photos: {told}. Restore it, or"):
        run_it(config)
    assert (adapter_bytes(tmp_path / "run"), contents(tmp_path / "run" / "checkpoint-1")) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"studio.txt": "a new caption"}, "captions: studio.txt was changed."),
        ({"studio.txt": None}, "captions: studio.jpg (by the prompt) is new, studio.txt is gone."),
        ({"masks/studio.png": "darker"}, "masks: studio.png was changed."),
    ],
)
def test_other_captions_and_masks_are_refused_by_name(
    tmp_path: Path, subject_photos: Path, change: dict[str, str | None], told: str
) -> None:
    photos, paths = shutil.copytree(subject_photos, tmp_path / "photos"), sorted(subject_photos.glob("*.jpg"))
    (photos / "masks").mkdir()
    for number, path in enumerate(paths):
        (photos / f"{path.stem}.txt").write_text(f"caption {number} of sks")
        Image.new("L", Image.open(path).size, 255).save(photos / "masks" / f"{path.stem}.png")
    data = {"instance_data_dir": photos, "mask_data_dir": photos / "masks"}
    config = small_config(tmp_path / "run", 2, data=data, adapter={"rank": 1})
    run_it(config, stop_after=1)
    for name, text in change.items():
        if text is None:
            (photos / name).unlink()
        elif name.endswith(".png"):
            Image.new("L", Image.open(photos / name).size, 254).save(photos / name)
        else:
            (photos / name).write_text(text)
    with pytest.raises(TrainingError) as caught:
        run_it(config)
    assert str(caught.value) == (f"checkpoint-1 cannot be resumed: {told} Restore it, or start again with --overwrite.")


def test_another_base_under_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Magnitudes belong to one checkpoint; going on over another would say nothing and end in wrong colours."""
    config = small_config(tmp_path / "run", 2, adapter={"rank": 1})
    run_it(config, stop_after=1)

    def load_another(*arguments: Any, **options: Any) -> BaseModel:
        base = load_base(*arguments, **options)
        with torch.no_grad():
            next(base.pipe.text_encoder.parameters()).add_(0.01)
        return base

    monkeypatch.setattr("dora_diffusion.training.assembly.load_base", load_another)
    with pytest.raises(TrainingError, match="checkpoint-1 cannot be resumed: base was [0-9a-f]+ and is [0-9a-f]+"):
        run_it(config)


# ------------------------------------------------------------------------------------------------- our own folder
def test_a_finished_run_does_nothing(copy_of_finished: Copy) -> None:
    folder = copy_of_finished("run")
    before = contents(folder)
    heard = Heard()
    result = run_it(small_config(folder, 3), heard)
    assert contents(folder) == before
    assert (result.step, result.stopped, result.adapter) == (3, False, folder / "pytorch_lora_weights.safetensors")
    assert [type(event) for event in heard] == [Note, Finished]
    (note,) = heard.of(Note)
    assert all(words in note.message for words in (str(folder), "is finished", "--max_train_steps", "--overwrite"))


def test_a_run_that_did_nothing_does_not_say_it_is_done(
    copy_of_finished: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of_finished("run")
    run_it(small_config(folder, 3), ProgressBar())
    said = capsys.readouterr().err
    assert "is finished" in said and f"Nothing was left to do: {folder / WEIGHTS_NAME} is of step 3." in said
    assert "Done after" not in said
    run_it(small_config(folder, 4), ProgressBar())
    assert f"Done after 4 steps: {folder / WEIGHTS_NAME}" in capsys.readouterr().err


def test_overwrite_starts_again(finished_run: Path, copy_of_finished: Copy) -> None:
    """Nothing of the old run is left, and the stored settings would resume the new one."""
    folder = copy_of_finished("run")
    (folder / "samples").mkdir()
    (folder / "samples" / "step-000009-00-0.png").write_bytes(b"old")
    (folder / ".checkpoint-9.writing").mkdir()
    heard = Heard()
    run_it(small_config(folder, 2, run={"overwrite": True}), heard)
    assert [event.step for event in heard.of(StepDone)] == [1, 2]
    assert [row["step"] for row in metrics(folder)] == [1, 2]
    assert sorted(path.name for path in folder.glob("*checkpoint-*")) == ["checkpoint-2"]
    assert not (folder / "samples").exists()
    for file in ("adapter.safetensors", "optimizer.safetensors"):
        assert (folder / "checkpoint-2" / file).read_bytes() == (finished_run / "checkpoint-2" / file).read_bytes()
    assert load_yaml(TrainConfig, folder / "config.yaml").run.overwrite is False


def test_overwrite_takes_other_settings(copy_of_finished: Copy) -> None:
    folder = RunFolder(small_config(copy_of_finished("run"), 3, adapter={"rank": 8}, run={"overwrite": True}))
    assert not folder.is_finished()
    folder.open()
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]


def test_a_kill_while_an_old_run_is_cleared_away_leaves_a_folder_of_ours(copy_of_finished: Copy) -> None:
    moments = 0
    while True:
        folder = RunFolder(small_config(copy_of_finished(str(moments)), 3, run={"overwrite": True}))
        with life_of(moments) as life:
            folder.open()
        RunFolder(small_config(folder.path, 3, run={"overwrite": True})).open()
        assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]
        if not life.died:
            break
        moments += 1
    assert moments > 15


def test_the_written_settings_run_again_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_it(small_config(folder, 2))
    adapter, settings = adapter_bytes(folder), (folder / "config.yaml").read_bytes()
    shutil.copy(folder / "config.yaml", tmp_path / "again.yaml")
    assert main(["train", str(folder / "config.yaml")]) == 0
    assert adapter_bytes(folder) == adapter
    shutil.rmtree(folder)
    assert main(["train", str(tmp_path / "again.yaml")]) == 0
    assert adapter_bytes(folder) == adapter
    assert (folder / "config.yaml").read_bytes() == settings


def test_the_written_settings_hold_every_setting(finished_run: Path) -> None:
    written = yaml.safe_load((finished_run / "config.yaml").read_text())
    everything = small_config(finished_run, 3).model_dump(mode="json")
    assert written.pop("preset") is everything.pop("preset") is None
    assert {group: list(values) for group, values in written.items()} == {g: list(v) for g, v in everything.items()}
    assert written["adapter"]["rank"] == 4


# ------------------------------------------------------------------------------------------------- checkpoints by name
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(copy_of_finished: Copy) -> None:
    folder = copy_of_finished("run")
    before = contents(folder)
    with pytest.raises(
        TrainingError, match="no checkpoint 'checkpoint-7'; it has: checkpoint-1, checkpoint-2, checkpoint-3"
    ):
        run_it(small_config(folder, 9, run={"resume_from_checkpoint": "checkpoint-7"}))
    assert contents(folder) == before


def test_a_checkpoint_of_a_run_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint 'checkpoint-7'; it has: none"):
        run_it(small_config(tmp_path / "run", run={"resume_from_checkpoint": "checkpoint-7"}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wanted", ["checkpoint-2", "some/where/checkpoint-2", "checkpoint-2/"])
def test_a_checkpoint_is_found_by_name_and_by_path(finished_run: Path, wanted: str) -> None:
    folder = RunFolder(small_config(finished_run, 9, run={"resume_from_checkpoint": wanted}))
    assert folder.resume_points() == [finished_run / "checkpoint-2"]


def test_the_latest_is_the_newest_that_is_not_past_the_end(finished_run: Path) -> None:
    for steps, expected in ((9, "checkpoint-3"), (3, "checkpoint-3"), (2, "checkpoint-2")):
        assert RunFolder(small_config(finished_run, steps)).resume_points()[0] == finished_run / expected


def test_the_written_settings_resume_from_the_latest(copy_of_finished: Copy) -> None:
    """A run that went back to a checkpoint by name, and is interrupted, must not go back a second time."""
    folder = RunFolder(small_config(copy_of_finished("run"), 9, run={"resume_from_checkpoint": "checkpoint-1"}))
    folder.open()
    assert load_yaml(TrainConfig, folder.path / "config.yaml").run.resume_from_checkpoint == "latest"


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    limits = {"checkpointing_steps": 1, "checkpoints_total_limit": 2}
    run_it(small_config(tmp_path / "run", 4, adapter={"rank": 1}, run=limits))
    assert sorted(path.name for path in (tmp_path / "run").glob("*checkpoint*")) == ["checkpoint-3", "checkpoint-4"]
