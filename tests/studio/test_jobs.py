"""The queue, and what is true about each job, by a trainer that trains nothing."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from waiting import wait_until

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import ConfigError, StudioError
from dora_diffusion.studio.estimates import Estimate
from dora_diffusion.studio.job_files import LossLogs
from dora_diffusion.studio.studio import Studio

MakeStudio = Callable[..., Studio]


def ended(studio: Studio, id: str) -> bool:
    return studio.jobs.get(id).has_ended


def enqueue(studio: Studio, photos: list[Path], steps: int = 12, noun: str = "duck") -> str:
    subject = studio.subjects.create(photos, "", noun)
    return studio.jobs.enqueue(subject.id, "quick", {"run.max_train_steps": steps}).id


def test_the_service_needs_neither_gradio_nor_anything_that_computes() -> None:
    code = (
        "import sys, pkgutil, importlib, dora_diffusion.studio as s;"
        "[importlib.import_module(s.__name__ + '.' + m.name)"
        " for m in pkgutil.iter_modules(s.__path__) if m.name != 'ui'];"
        "print({'gradio', 'torch', 'diffusers', 'numpy', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_server_that_took_photos_and_settings_has_still_not_loaded_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dora_diffusion.studio.studio import Studio;"
        f"s = Studio(Path({str(tmp_path / 'home')!r})); t = s.subjects.create_from_sample('teapot');"
        "s.jobs.enqueue(t.id, 'quick'); s.jobs.current();"
        "print({'gradio', 'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_training_goes_from_queued_to_done(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio, seen = make_studio(pause_s=0.04), []
    id = enqueue(studio, photos)

    def is_done() -> bool:
        job = studio.jobs.get(id)
        seen.append(job.state)
        assert job.is_active == (job.state in ("starting", "running", "saving"))
        return job.has_ended

    wait_until(is_done)
    order = list(dict.fromkeys(seen))
    assert order == [s for s in ("queued", "starting", "running", "saving", "done") if s in order]
    assert {"starting", "running", "done"} <= set(order)
    job = studio.jobs.get(id)
    assert (job.state, job.step, job.total, job.seconds_left, job.position) == ("done", 12, 12, None, None)
    assert (job.device, job.memory_gib, job.step_ms, job.attempt) == ("CPU", 0.5, 40.0, 1)
    assert job.settings == "quick, 12 steps" and job.ended is not None and job.failure is None
    assert [step for step, _ in studio.jobs.losses(id)] == list(range(1, 13))
    assert studio.jobs.checkpoints(id) == [2, 4, 6, 8, 10, 12]
    assert [step for step, _ in studio.jobs.likeness(id)] == [2, 4, 6, 8, 10, 12]
    assert job.best_step == 12 and job.likeness == pytest.approx(0.95)
    assert studio.subjects.adapter(job.subject_id) == studio.jobs.adapter(id)


def test_a_job_keeps_the_photos_it_was_put_in_line_with(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.subjects.create(photos[:2], "", "duck")
    given = [photo.name for photo in studio.subjects.photos(subject.id)]
    job = studio.jobs.enqueue(subject.id, "quick")
    Image.effect_noise((80, 60), 90).save(photos[2])
    assert studio.subjects.add_photos(subject.id, photos[2:]) == []
    assert studio.jobs.photos(job.id) == given
    assert len(studio.subjects.photos(subject.id)) == 3


def test_previews_lie_where_a_page_may_show_them(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    id = enqueue(studio, photos)
    wait_until(lambda: ended(studio, id))
    previews = studio.jobs.previews(id)
    assert [(p.step, p.prompt) for p in previews[:3]] == [
        (2, "a photo of sks duck"),
        (2, "a photo of sks duck on the beach"),
        (2, "a photo of sks duck in the snow"),
    ]
    assert len(previews) == 18 and previews[-1].likeness == pytest.approx(0.9)
    assert all(p.path.is_file() and studio.home.media in p.path.parents for p in previews)


def test_the_settings_are_the_presets_with_previews_of_the_subject(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    subject = studio.subjects.create(photos, "", "duck", "zwx")
    job = studio.jobs.enqueue(subject.id, "balanced", {"adapter.rank": 8})
    folder = studio.home.path_of("job", job.id)
    config = load_yaml(TrainConfig, folder / "config.yaml")
    preset = TrainConfig(preset="toybox-balanced")
    assert config.adapter == preset.adapter.model_copy(update={"rank": 8})
    assert (config.optim, config.prior) == (preset.optim, preset.prior)
    assert (config.data.instance_data_dir, config.run.output_dir) == (folder / "photos", folder / "run")
    assert (config.data.trigger, config.data.class_noun) == ("zwx", "duck")
    assert config.run.checkpointing_steps == config.run.validation_steps == 50
    assert all("{trigger}" in prompt for prompt in config.run.validation_prompt)
    assert job.settings == "balanced, 300 steps, rank 8"
    assert config.adapter == studio.jobs.config(subject.id, "balanced", {"adapter.rank": 8}).adapter


def test_a_base_says_itself_how_large_its_pictures_are(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    with studio.database.transaction() as connection:
        connection.execute(
            "insert into bases (name, label, family, place, size, added) values "
            "('some/sd2-base', 'SD 2 base', 'sd2', 'hub', 512, 0)"
        )
    subject = studio.subjects.create(photos, "", "duck", base="some/sd2-base")
    for given, side in (({}, 512), ({"data.resolution": 640}, 640)):
        job = studio.jobs.enqueue(subject.id, "quick", given)
        assert studio.board.row(job.id)["resolution"] == side
        assert f" {side} " in studio.estimates._key(studio.jobs.config(subject.id, "quick", given))
        studio.jobs.cancel(job.id)


@pytest.mark.parametrize(
    ("quality", "overrides", "says"),
    [
        ("superb", {}, "Unknown quality"),
        ("quick", {"adapter.rnak": 4}, "adapter.rank"),
        ("quick", {"adapter.rank": 0}, "rank"),
        ("quick", {"run.max_train_steps": -1}, "max_train_steps"),
        ("quick", {"run.max_train_steps": "many"}, "max_train_steps"),
        ("quick", {"run.output_dir": "/etc"}, "decided by the studio"),
        ("quick", {"data.instance_data_dir": "/etc"}, "decided by the studio"),
        ("quick", {"data.mask_data_dir": "/etc"}, "decided by the studio"),
        ("quick", {"prior.class_data_dir": "/etc"}, "decided by the studio"),
        ("quick", {"run.push_to_hub": True}, "decided by the studio"),
        ("quick", {"run.report_to": "wandb"}, "decided by the studio"),
        ("quick", {"model.allow_pickle": True}, "decided by the studio"),
        ("quick", {"run.validation_prompt": ["a photo of a dog"]}, "must name the subject"),
        ("quick", {"../../x": 1}, "Unknown setting"),
    ],
)
def test_settings_that_are_none_make_no_job(
    make_studio: MakeStudio, photos: list[Path], quality: str, overrides: dict[str, object], says: str
) -> None:
    studio = make_studio(start=False)
    subject = studio.subjects.create(photos, "", "duck")
    with pytest.raises(ConfigError, match=says):
        studio.jobs.enqueue(subject.id, quality, overrides)
    assert studio.jobs.list() == [] and list((studio.home.path / "jobs").iterdir()) == []


def test_a_double_click_is_one_job(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    subject = studio.subjects.create(photos, "", "duck")

    def click(_: int) -> str:
        try:
            return studio.jobs.enqueue(subject.id, "quick").id
        except StudioError as error:
            assert "already" in str(error)
            return ""

    with ThreadPoolExecutor(8) as pool:
        made = [id for id in pool.map(click, range(8)) if id]
    assert len(made) == 1
    assert [job.id for job in studio.jobs.list()] == made
    assert [path.name for path in (studio.home.path / "jobs").iterdir()] == made


def test_positions_move_up_and_cancel(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    first, second, third = (enqueue(studio, photos, noun=noun) for noun in ("duck", "cat", "mug"))
    assert [job.id for job in studio.jobs.current()] == [first, second, third]
    assert [job.position for job in studio.jobs.current()] == [0, 1, 2]
    assert studio.jobs.move_up(third).position == 1
    assert studio.jobs.move_up(third).position == 0
    assert studio.jobs.move_up(third).position == 0
    assert studio.jobs.cancel(first).state == "cancelled"
    assert [job.id for job in studio.jobs.current()] == [third, second]
    with pytest.raises(StudioError, match="nothing to cancel"):
        studio.jobs.cancel(first)
    with pytest.raises(StudioError, match="does not wait"):
        studio.jobs.move_up(first)
    assert studio.jobs.resume(first).position == 2
    studio.scheduler.turn()
    assert studio.jobs.get(third).is_active and studio.jobs.get(second).position == 0


def test_when_a_waiting_job_starts_is_told_from_earlier_ones(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(pause_s=0.02)
    done = enqueue(studio, photos, 20)
    assert studio.jobs.get(done).starts_in in (None, 0.0)
    wait_until(lambda: ended(studio, done))
    running, waits, last = (enqueue(studio, photos, 100, noun) for noun in ("cat", "mug", "robot"))
    wait_until(lambda: studio.jobs.get(running).step > 2)
    soon, later = studio.jobs.get(waits).starts_in, studio.jobs.get(last).starts_in
    assert soon is not None and later is not None
    assert 0.5 < soon < 10 and soon + 1 < later < soon + 30


def test_when_a_waiting_job_starts_is_told_before_the_first_step_ever(
    make_studio: MakeStudio, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio(pause_s=60, start=False)
    monkeypatch.setattr(studio.estimates, "known", lambda config: Estimate(40.0, 1.0, 8.0, "a two-step measurement"))
    preparing, waits, last = (enqueue(studio, photos, 100, noun) for noun in ("cat", "mug", "robot"))
    studio.scheduler.turn()
    wait_until(lambda: studio.jobs.get(preparing).state == "starting")
    soon, later = studio.jobs.get(waits).starts_in, studio.jobs.get(last).starts_in
    assert soon is not None and later is not None
    assert 20 < soon <= 40 and later == pytest.approx(soon + 40, abs=1)


def test_cancel_saves_and_resume_goes_on(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(pause_s=0.02)
    id = enqueue(studio, photos, 60)
    wait_until(lambda: studio.jobs.get(id).step >= 3)
    assert studio.jobs.cancel(id).stop_asked
    studio.jobs.cancel(id)  # a second click changes nothing: a second signal would end it before it has saved
    wait_until(lambda: ended(studio, id))
    stopped = studio.jobs.get(id)
    assert stopped.state == "cancelled" and 3 <= stopped.step < 60 and not stopped.stop_asked
    assert "everything is saved" in stopped.message and stopped.failure is None
    assert studio.jobs.checkpoints(id)[-1] == stopped.step
    studio.jobs.resume(id)
    wait_until(lambda: ended(studio, id))
    assert (studio.jobs.get(id).state, studio.jobs.get(id).attempt) == ("done", 2)
    assert [step for step, _ in studio.jobs.losses(id)] == list(range(1, 61))
    with pytest.raises(StudioError, match="finished"):
        studio.jobs.resume(id)


def test_a_job_keeps_the_photos_it_was_started_with(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    id = enqueue(studio, photos)
    subject = studio.jobs.get(id).subject_id
    kept = studio.home.path_of("job", id) / "photos"
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    studio.subjects.remove_photo(subject, "02.jpg")
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before and len(before) == 3


def test_trainings_are_numbered_within_their_subject(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    first, other = enqueue(studio, photos, noun="duck"), enqueue(studio, photos, noun="cat")
    subject = studio.jobs.get(first).subject_id
    studio.jobs.cancel(first)
    again = studio.jobs.enqueue(subject, "quick", {"adapter.rank": 3})
    assert (studio.jobs.get(first).ordinal, studio.jobs.get(other).ordinal, again.ordinal) == (1, 1, 2)
    assert again.changed == ("adapter.rank",)
    studio.jobs.remove(first)
    assert studio.jobs.get(again.id).ordinal == 2, "it keeps its number"


def test_remove_forgets_a_job(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    id = enqueue(studio, photos)
    wait_until(lambda: ended(studio, id))
    subject = studio.jobs.get(id).subject_id
    studio.subjects.choose(subject, id, 6)
    studio.jobs.remove(id)
    with pytest.raises(StudioError, match="no training called"):
        studio.jobs.get(id)
    assert not studio.home.path_of("job", id).exists()
    assert studio.subjects.adapter(subject) is None and studio.subjects.get(subject).chosen_job is None
    again = enqueue(studio, photos, noun="cat")
    assert again != id  # a number is given once


@pytest.mark.parametrize("id", ["job-0", "job-99999", "job-1x", "duck-1", "../job-1", "", "job-", "JOB-1", "job-01", 7])
def test_ids_that_are_none(make_studio: MakeStudio, photos: list[Path], id: str) -> None:
    studio = make_studio(start=False)
    enqueue(studio, photos)
    for do in (studio.jobs.get, studio.jobs.cancel, studio.jobs.losses, studio.jobs.log_tail, studio.jobs.remove):
        with pytest.raises(StudioError):
            do(id)


def test_what_cannot_be_trained(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    draft = studio.subjects.draft()
    with pytest.raises(StudioError, match="What is it"):
        studio.jobs.enqueue(draft.id, "quick")
    studio.subjects.update(draft.id, class_noun="duck")
    with pytest.raises(StudioError, match="no photos yet"):
        studio.jobs.enqueue(draft.id, "quick")
    gone = studio.subjects.create(photos, "Rex", "duck")
    studio.subjects.delete(gone.id, "Rex")
    with pytest.raises(StudioError, match="in the trash"):
        studio.jobs.enqueue(gone.id, "quick")


def test_the_revision_grows_with_what_a_page_shows(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(pause_s=0.2)
    at_rest = studio.jobs.revision()
    assert studio.jobs.revision() == at_rest
    id = enqueue(studio, photos, 30)
    wait_until(lambda: studio.jobs.get(id).step >= 1)
    before, step = studio.jobs.revision(), studio.jobs.get(id).step
    assert before > at_rest
    wait_until(lambda: studio.jobs.get(id).step > step)
    assert studio.jobs.revision() > before
    other = Studio(studio.home.path)
    assert other.jobs.revision() > at_rest  # a page that outlived its server notices


def test_losses_skip_what_is_no_number_and_keep_the_last_of_a_step(tmp_path: Path) -> None:
    logs, file = LossLogs(), tmp_path / "metrics.jsonl"
    assert logs.read(file) == []
    lines = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": NaN}', '{"step": 3, "loss": 0.3}', "{}", "7", "[]", "no"]
    file.write_text("\n".join([*lines, '{"step": 3, "loss": 0.2}', '{"step": 4, "lo']))
    assert logs.read(file) == [(1, 0.5), (3, 0.2)]
    with file.open("a") as stream:
        stream.write('ss": 0.1}\n')
    assert logs.read(file) == [(1, 0.5), (3, 0.2), (4, 0.1)]
    fresh = tmp_path / "new"  # as a resumed run writes it
    fresh.write_text('{"step": 1, "loss": 0.5}\n')
    fresh.replace(file)
    assert logs.read(file) == [(1, 0.5)]
    file.unlink()
    assert logs.read(file) == []


def test_ten_thousand_losses_are_read_again_at_once(tmp_path: Path) -> None:
    logs, file = LossLogs(), tmp_path / "metrics.jsonl"
    file.write_text("".join(f'{{"step": {n}, "loss": {1 / n}}}\n' for n in range(1, 10_001)))
    assert len(logs.read(file)) == 10_000

    def read_again() -> float:
        with file.open("a") as stream:
            stream.write('{"step": 10001, "loss": 0.5}\n')
        began = time.perf_counter()
        assert len(logs.read(file)) == 10_001
        return time.perf_counter() - began

    assert min(read_again() for _ in range(5)) < 0.02


def test_two_hundred_waiting_jobs_are_told_in_milliseconds(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    for number in range(200):
        subject = studio.subjects.create(photos[:1], f"subject {number}", "duck")
        studio.jobs.enqueue(subject.id, "quick")

    def seconds(do: Callable[[], object]) -> float:
        began = time.perf_counter()
        do()
        return time.perf_counter() - began

    assert len(studio.jobs.current()) == 200
    last = studio.jobs.list()[0].id
    for do in (studio.jobs.current, studio.jobs.list, studio.jobs.revision, lambda: studio.jobs.get(last)):
        assert min(seconds(do) for _ in range(5)) < 0.05
    assert studio.jobs.get(last).position == 199 and studio.jobs.count() == 200


def test_tokens_are_left_out_of_the_log(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    id = enqueue(studio, photos)
    log = studio.home.path_of("job", id) / "trainer.log"
    log.write_text("first\nlogged in with hf_" + "a1B2" * 8 + "\n\n1%\r2%\r")
    assert studio.jobs.log_tail(id).splitlines() == ["first", "logged in with hf_…", "1%", "2%"]
    assert studio.jobs.log_tail(id, 1) == "2%"
