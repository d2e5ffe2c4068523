"""The real trainer as the studio starts it: status, codes, adapters of every checkpoint, likeness, exact resume."""

import json
import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from waiting import wait_until

from dora_diffusion.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from dora_diffusion.config.files import dump_yaml
from dora_diffusion.formats import load_adapter
from dora_diffusion.studio import job_files, process, trainer
from dora_diffusion.studio.board import _images_drawn
from dora_diffusion.studio.likeness import class_pictures
from dora_diffusion.studio.studio import Studio
from dora_diffusion.training import run as training_run
from dora_diffusion.training.events import ClassImages, PreviewReady, RunStarted, Saved, Saving, StepDone


def job(folder: Path, photos: Path, steps: int, **run: Any) -> Path:
    """A job's folder with settings; returns its config.yaml."""
    folder.mkdir(parents=True)
    (folder / "run").mkdir()
    config = TrainConfig(
        adapter={"rank": 2, "targets": "attn"},
        model=ModelConfig(pretrained_model_name_or_path=run.pop("base", "toybox")),
        data=DataConfig(instance_data_dir=photos, class_noun=run.pop("class_noun", "teapot")),
        run=RunConfig(output_dir=folder / "run", max_train_steps=steps, cpu=True, **run),
    )
    (folder / "config.yaml").write_text(dump_yaml(config))
    return folder / "config.yaml"


def status(config_file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config_file.parent / "run" / "status.json").read_text())
    return found


def never() -> bool:
    return False


def test_a_short_run_leaves_what_the_studio_shows(tmp_path: Path, subject_photos: Path) -> None:
    file = job(tmp_path / "job-1", subject_photos, 3, checkpointing_steps=2)
    assert trainer.train_job(file, never) == 0
    said = status(file)
    assert (said["state"], said["step"], said["max_train_steps"]) == ("done", 3, 3)
    assert said["device"] == "CPU" and 0.1 < said["memory_gib"] < 64 and said["step_ms"] > 0
    assert job_files.adapter_steps(file.parent) == [2, 3]
    last, end = job_files.adapter_file(file.parent, 3), job_files.adapter_file(file.parent, None)
    assert last is not None and end is not None and last.read_bytes() == end.read_bytes()
    middle = load_adapter(job_files.adapter_path(file.parent, 2))
    assert middle.metadata["step"] == "2" and middle.base_name == "toybox"


def test_a_run_that_is_asked_to_stop_says_that_it_saves(
    tmp_path: Path, subject_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = job(tmp_path / "job-1", subject_photos, 50)
    seen, save = [], training_run.save_checkpoint

    def watched(*values: Any, **named: Any) -> Path:
        seen.append(status(file)["state"])
        return save(*values, **named)

    monkeypatch.setattr(training_run, "save_checkpoint", watched)
    assert trainer.train_job(file, lambda: status(file)["step"] >= 2) == 0
    assert seen == ["saving"]
    assert (status(file)["state"], status(file)["step"]) == ("stopped", 2)
    assert job_files.adapter_steps(file.parent) == [2]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"base": "/no/such/model"}, "base_missing", "/no/such/model"),
        ({"class_noun": None}, "settings", "What is the subject"),
        ({"photos": "nowhere"}, "photos", "does not exist"),
    ],
)
def test_what_a_user_can_mend_has_its_code(
    tmp_path: Path, subject_photos: Path, changes: dict[str, Any], code: str, words: str
) -> None:
    photos = tmp_path / changes.pop("photos") if "photos" in changes else subject_photos
    file = job(tmp_path / "job-1", photos, 2, **changes)
    assert trainer.train_job(file, never) == 2
    said = status(file)
    assert (said["state"], said["code"]) == ("failed", code) and words in said["message"]


def test_settings_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "job-1" / "run").mkdir(parents=True)
    file = tmp_path / "job-1" / "config.yaml"
    file.write_text("adapter: {rank: -1}")
    assert trainer.train_job(file, never) == 2
    assert (status(file)["state"], status(file)["code"]) == ("failed", "settings")


@pytest.mark.parametrize(
    ("error", "exit_status", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "out_of_memory"),
        (OSError(28, "No space left on device"), 2, "disk_full"),
        (ZeroDivisionError("a bug"), 1, "broken"),
    ],
)
def test_what_breaks_inside_a_step_has_its_code(
    tmp_path: Path,
    subject_photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    exit_status: int,
    code: str,
) -> None:
    def step(_: object) -> None:
        raise error

    monkeypatch.setattr(training_run.Stepper, "step", step)
    file = job(tmp_path / "job-1", subject_photos, 2)
    assert trainer.train_job(file, never) == exit_status
    assert (status(file)["state"], status(file)["code"]) == ("failed", code)


def test_a_loss_that_is_not_finite_is_told(
    tmp_path: Path, subject_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = training_run.Stepper.step

    def step(stepper: Any) -> Any:
        losses = before(stepper)
        return losses.__class__(**{**losses.__dict__, "total": math.nan, "applied": False})

    monkeypatch.setattr(training_run.Stepper, "step", step)
    file = job(tmp_path / "job-1", subject_photos, 9, checkpointing_steps=2)
    assert trainer.train_job(file, never) == 2
    assert (status(file)["state"], status(file)["code"]) == ("failed", "unstable")


class Told:
    """A keeper's events, fed by hand."""

    def __init__(self, folder: Path, config: TrainConfig):
        self.said: dict[str, Any] = {}
        self.keeper = trainer.Keeper(config, folder, lambda **facts: self.said.update(facts), never)


def test_likeness_of_photos_is_high_and_of_class_images_is_nothing(
    tmp_path: Path, subject_photos: Path, own_home: Path
) -> None:
    """Photos shown as previews are as like as photos are; the floor's own pictures are at 0 in the mean."""
    from dora_diffusion.data.photos import list_photos, open_photo
    from dora_diffusion.inference.picture import save_picture

    other = subject_photos.parent.parent / "held_out"
    config = TrainConfig(
        preset="toybox-quick",
        model=ModelConfig(),
        data=DataConfig(instance_data_dir=subject_photos, class_noun="teapot"),
        run=RunConfig(output_dir=tmp_path / "run", validation_prompt=["a photo of {trigger} {class}"]),
    )
    drawn = own_home / "class_images" / "generated-00"
    pictures = [p for name in ("mug", "cat", "rocket") for p in list_photos(other / name)]
    settings = {"prompt": "a photo of a teapot", "model": "toybox", "width": 128}
    settings |= {"num_inference_steps": 25, "guidance_scale": 5.0}
    for number, picture in enumerate(pictures[:12]):
        save_picture(open_photo(picture), drawn / f"{number:05d}.png", {**settings, "seed": number})
    assert class_pictures(config) == sorted(drawn.glob("*.png"))
    told = Told(tmp_path, config)
    told.keeper(RunStarted(tmp_path, 0, 9, {}))
    photos = tuple(list_photos(subject_photos))
    told.keeper(PreviewReady(3, photos))
    told.keeper(PreviewReady(6, tuple(class_pictures(config))))
    found = job_files.likenesses(tmp_path)
    assert list(found) == [3, 6]
    assert 0.9 < found[3].mean < 1.6 and found[3].mean == pytest.approx(sum(found[3].pictures.values()) / 5, abs=1e-3)
    assert abs(found[6].mean) < 0.1  # no teapots: the eye counts them as nothing
    again = Told(tmp_path, config)
    again.keeper(RunStarted(tmp_path, 3, 9, {}))  # resumed at step 3: step 6 will be drawn again
    again.keeper(PreviewReady(6, photos))
    assert list(job_files.likenesses(tmp_path)) == [3, 6]
    assert job_files.likenesses(tmp_path)[6].mean == pytest.approx(found[3].mean)


def test_where_the_eye_knows_nothing_there_is_no_likeness(tmp_path: Path, subject_photos: Path) -> None:
    config = TrainConfig(data=DataConfig(instance_data_dir=subject_photos, class_noun="gadget"))
    told = Told(tmp_path, config)
    told.keeper(RunStarted(tmp_path, 0, 9, {}))
    told.keeper(PreviewReady(3, ()))
    assert job_files.likenesses(tmp_path) == {} and not (tmp_path / job_files.LIKENESS).exists()


def test_the_adapter_is_kept_before_the_checkpoint_is_there(tmp_path: Path) -> None:
    told = Told(tmp_path, TrainConfig())
    told.keeper(Saving(40, lambda path: path.write_text("adapter")))  # type: ignore[arg-type, return-value]
    assert job_files.adapter_steps(tmp_path) == [40]
    told.keeper(StepDone(50, 50, 0.1, 0.1, None, 1e-4, 12.34, 0.0))
    told.keeper(Saved(50, tmp_path))
    assert told.said["state"] == "saving" and told.said["step_ms"] == 12.3


def test_the_time_for_class_images_is_told_of_those_that_it_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, now = Told(tmp_path, TrainConfig()), [100.0]
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
    told.keeper(ClassImages(4, 12))  # those were there
    now[0] += 6
    told.keeper(ClassImages(8, 12))
    assert told.said["images_drawn"] == {"count": 4, "seconds": 6.0}
    assert _images_drawn(told.said) == (4, 6.0) and _images_drawn({}) == (0, 0.0)


def test_the_time_left_counts_the_previews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunConfig(max_train_steps=10, validation_steps=4, validation_prompt=["a photo of {trigger}"])
    told, now = Told(tmp_path, TrainConfig(run=run)), [100.0]
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])

    def left_after(step: int) -> float:
        told.keeper(StepDone(step, 10, 0.1, 0.1, None, 1e-4, 1000.0, 10.0 - step))
        left: float = told.said["seconds_left"]
        return left

    assert left_after(4) == 6  # how long a preview takes is not known yet
    now[0] += 3
    told.keeper(PreviewReady(4, ()))
    assert left_after(5) == 5 + 2 * 3  # those of step 8 and of the end
    assert left_after(8) == 2 + 3
    assert left_after(10) == 0


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "job-1" / "run").mkdir(parents=True)
    (tmp_path / "job-1" / "config.yaml").write_text("adapter: {rank: -1}")
    command = [sys.executable, "-m", "dora_diffusion.studio.trainer", str(tmp_path / "job-1" / "config.yaml")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.startswith("Error:")


def trained(home: Path, kill_after: tuple[int, ...]) -> tuple[object, ...]:
    """What a training leaves whose trainer is killed after some steps, each time with a new server following."""
    studio = Studio(home)
    studio.start()
    subject = studio.subjects.create_from_sample("teapot")
    settings = {"run.max_train_steps": 12, "prior.num_class_images": 2, "adapter.rank": 4}
    id = studio.jobs.enqueue(subject.id, "quick", settings).id
    alive = studio.home.path_of("job", id) / "alive"

    def has_done(step: int) -> bool:
        return Studio(home).jobs.get(id).step >= step

    for step in kill_after:
        wait_until(partial(has_done, step), 300)
        process.send(process.pid_in(alive) or 0, signal.SIGKILL)
        wait_until(lambda: Studio(home).jobs.get(id).state == "interrupted", 5)
        studio.close()
        studio = Studio(home)
        studio.start()
        studio.jobs.resume(id)
    wait_until(lambda: Studio(home).jobs.get(id).has_ended, 300)
    studio.close()
    job_now = studio.jobs.get(id)
    assert (job_now.state, job_now.attempt) == ("done", len(kill_after) + 1), studio.jobs.log_tail(id)
    return (
        {step: studio.jobs.adapter(id, step).read_bytes() for step in studio.jobs.checkpoints(id)},
        studio.jobs.losses(id),
        studio.jobs.likeness(id),
        [(p.step, p.seed, p.likeness, p.path.read_bytes()) for p in studio.jobs.previews(id)],
    )


@pytest.mark.slow
def test_a_real_training_that_is_killed_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    """On toybox: every adapter, loss, likeness and preview is that of an undisturbed training."""
    undisturbed, killed = trained(tmp_path / "home0", ()), trained(tmp_path / "home1", (3, 9))
    adapters, losses, likeness, previews = killed
    assert isinstance(adapters, dict) and sorted(adapters) == [2, 4, 6, 8, 10, 12]
    assert isinstance(losses, list) and [step for step, _ in losses] == list(range(1, 13))
    assert isinstance(likeness, list) and len(likeness) == 6
    assert isinstance(previews, list) and len(previews) == 18
    assert killed == undisturbed
