"""Why a training failed in plain words, and remedies that really change what they say."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import wait_until

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import (
    ConfigError,
    DataError,
    MachineError,
    ModelError,
    OutOfMemoryError,
    StudioError,
    TrainingError,
    UnstableError,
)
from dora_diffusion.studio.failures import Levers, change, code_of, failure
from dora_diffusion.studio.jobs import Job
from dora_diffusion.studio.studio import Studio

MakeStudio = Callable[..., Studio]


def failed(studio: Studio, photos: list[Path], quality: str = "quick", **more: object) -> Job:
    subject = studio.subjects.create(photos, "", "duck")
    id = studio.jobs.enqueue(subject.id, quality, {"run.max_train_steps": 6, **more}).id
    return after(studio, id)


def after(studio: Studio, id: str) -> Job:
    wait_until(lambda: studio.jobs.get(id).has_ended)
    return studio.jobs.get(id)


def names(job: Job) -> list[str]:
    assert job.failure is not None
    return [remedy.name for remedy in job.failure.remedies]


def config_of(studio: Studio, id: str) -> TrainConfig:
    return load_yaml(TrainConfig, studio.home.path_of("job", id) / "config.yaml")


def test_out_of_memory_and_its_remedies(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio("oom")
    job = failed(studio, photos)
    assert job.state == "failed" and job.failure is not None and job.failure.code == "out_of_memory"
    assert job.failure.message == "The memory was not enough at step 3." and "--gradient" in job.message
    assert [(r.name, r.label) for r in job.failure.remedies] == [
        ("halve_batch", "Retry with one photo at once"),
        ("smaller", "Retry at 96 px"),
        ("checkpointing", "Go on with memory saving"),
    ]
    halved = after(studio, studio.jobs.apply(job.id, "halve_batch").id)
    run = config_of(studio, halved.id).run
    assert halved.id != job.id and halved.state == "done" and halved.note.startswith("1 instead of 2 photos")
    assert (run.train_batch_size, run.gradient_accumulation_steps) == (1, 2)
    smaller = after(studio, studio.jobs.apply(job.id, "smaller").id)
    assert smaller.state == "done" and config_of(studio, smaller.id).data.resolution == 96
    same = after(studio, studio.jobs.apply(job.id, "checkpointing").id)
    assert (same.id, same.state, same.attempt) == (job.id, "done", 2)
    assert config_of(studio, job.id).run.gradient_checkpointing and "memory saving" in same.note


def test_a_remedy_that_cannot_help_is_not_offered(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio("fail")
    job = failed(studio, photos)
    assert names(job) == ["retry"]
    with pytest.raises(StudioError, match="not offered"):
        studio.jobs.apply(job.id, "halve_batch")
    with pytest.raises(StudioError, match="not offered"):
        studio.jobs.apply(job.id, "<script>")
    levers = Levers(1, 1, True, 64, 1e-4, None)
    assert failure("out_of_memory", "", levers, None).remedies == ()
    assert [r.name for r in failure("killed", "", levers, None).remedies] == ["resume"]
    assert [r.name for r in failure("unstable", "", levers, None).remedies] == ["half_rate"]
    assert [r.label for r in failure("unstable", "", levers, 40).remedies][1] == "Use step 40"


@pytest.mark.parametrize(("before", "later"), [(512, 384), (1024, 768), (768, 576), (128, 96), (96, 72), (64, None)])
def test_smaller_is_three_quarters_on_the_grid(before: int, later: int | None) -> None:
    levers = Levers(1, 1, False, before, 1e-4, None)
    if later is None:
        with pytest.raises(StudioError):
            change("smaller", levers)
    else:
        assert change("smaller", levers).settings == {"data.resolution": later}


@pytest.mark.parametrize(("batch", "expected"), [(2, (1, 4)), (4, (2, 4)), (3, (1, 6)), (9, (3, 6))])
def test_halving_keeps_the_photos_of_a_step(batch: int, expected: tuple[int, int]) -> None:
    made = change("halve_batch", Levers(batch, 2, False, 512, 1e-4, None)).settings
    assert (made["run.train_batch_size"], made["run.gradient_accumulation_steps"]) == expected
    assert expected[0] * expected[1] == batch * 2


def test_instability_and_half_the_rate(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio("nan")
    job = failed(studio, photos)
    assert job.failure is not None and job.failure.code == "unstable"
    assert names(job) == ["half_rate", "use_checkpoint"]
    again = after(studio, studio.jobs.apply(job.id, "half_rate").id)
    optim = config_of(studio, again.id).optim
    assert again.state == "done" and (optim.learning_rate, optim.text_encoder_lr) == (1.5e-3, 5e-4)


def test_use_the_last_good_checkpoint(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio("nan")
    job = failed(studio, photos)
    last = studio.jobs.checkpoints(job.id)[-1]
    assert studio.jobs.apply(job.id, "use_checkpoint").id == job.id
    assert studio.subjects.adapter(job.subject_id) == studio.jobs.adapter(job.id, last)


@pytest.mark.parametrize(
    ("mode", "code", "remedy", "says"),
    [("disk", "disk_full", "resume", "The disk is full"), ("base", "base_missing", "retry", "no base model")],
)
def test_what_was_mended_goes_on(
    make_studio: MakeStudio, photos: list[Path], mode: str, code: str, remedy: str, says: str
) -> None:
    studio = make_studio(mode)
    job = failed(studio, photos)
    assert job.failure is not None and job.failure.code == code and says in job.failure.message
    assert names(job) == [remedy]
    studio.jobs.apply(job.id, remedy)
    done = after(studio, job.id)
    assert (done.state, done.failure, done.attempt) == ("done", None, 2)


@pytest.mark.parametrize(
    ("mode", "state", "code"),
    [
        ("kill", "interrupted", "interrupted"),
        ("crash", "failed", "broken"),
        ("abort", "failed", "broken"),
        ("refuse", "failed", "broken"),
        ("liar", "failed", "broken"),
    ],
)
def test_ends_without_a_reason_given(
    make_studio: MakeStudio, photos: list[Path], mode: str, state: str, code: str
) -> None:
    studio = make_studio(mode)
    log = studio.home.path / "jobs" / "job-1" / "trainer.log"
    subject = studio.subjects.create(photos, "", "duck")
    id = studio.jobs.enqueue(subject.id, "quick", {"run.max_train_steps": 6}).id
    if mode == "crash":
        wait_until(lambda: log.exists())
        with log.open("a") as stream:
            stream.write("Something broke.\n")
    job = after(studio, id)
    assert job.failure is not None and (job.state, job.failure.code) == (state, code)
    assert job.failure.message and names(job)
    if mode == "refuse":
        assert "toybox cannot be found" in job.failure.message
    if mode in ("kill", "abort", "crash"):
        studio.jobs.apply(id, names(job)[0])
        assert after(studio, id).state == "done"


def test_a_trainer_that_the_kernel_ended_for_want_of_memory(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio("kill", start=False)
    count = iter(range(100))
    studio.trainers.oom_kills = lambda: next(count)
    studio.start()
    job = failed(studio, photos)
    assert job.failure is not None and (job.state, job.failure.code) == ("failed", "killed")
    assert "memory ran out" in job.failure.message and names(job) == ["resume", "halve_batch"]
    studio.jobs.apply(job.id, "resume")
    assert after(studio, job.id).state == "done"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutOfMemoryError("Out of memory in step 3"), "out_of_memory"),
        (UnstableError("not finite"), "unstable"),
        (TrainingError("another run"), "broken"),
        (ModelError("no base"), "base_missing"),
        (DataError("no photos"), "photos"),
        (ConfigError("rank"), "settings"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "disk_full"),
        (MachineError(f"x cannot be written: {os.strerror(errno.ENOSPC)}."), "disk_full"),
        (MachineError("Too little room for x: its disk has 1.0 MiB free"), "disk_full"),
        (caused(RuntimeError("Error while writing"), OSError(errno.EDQUOT, "quota")), "disk_full"),
        (MachineError("Cannot write"), "broken"),
        (ValueError("a bug"), "broken"),
    ],
)
def test_what_kind_of_failure_an_error_is(error: Exception, code: str) -> None:
    assert code_of(error) == code
