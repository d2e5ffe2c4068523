"""A training outlives the page and the server, and its state is what is true, not what was clicked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import wait_until

from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio import jobs
from dora_diffusion.studio.jobs import Studio
from dora_diffusion.studio.process import birth, is_alive

MakeStudio = Callable[..., Studio]
FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")


def test_jobs_need_neither_gradio_nor_torch() -> None:
    code = (
        "import sys, dora_diffusion.studio.jobs, dora_diffusion.studio.pictures;"
        "print({'gradio', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_training_goes_from_new_to_done(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.create_subject(photos, "duck", "sks", 8)
    assert studio.status(subject).state == "new"
    studio.start(subject)
    assert studio.running() == studio.current() == subject
    wait_until(lambda: studio.running() is None)
    status = studio.status(subject)
    assert (status.state, status.step, status.max_train_steps) == ("done", 8, 8)
    assert status.seconds_left is None and not status.is_active
    assert [step for step, _ in studio.losses(subject)] == list(range(1, 9))
    assert studio.subject(subject).adapter is not None


def test_states_come_in_order(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio, seen = make_studio(pause_s=0.05), []
    subject = studio.create_subject(photos, "duck", "sks", 8)
    studio.start(subject)

    def is_done() -> bool:
        status = studio.status(subject)
        seen.append(status.state)
        assert status.is_active == (status.state != "done")
        return status.state == "done"

    wait_until(is_done)
    order = list(dict.fromkeys(seen))
    assert order == [state for state in ("starting", "preparing", "training", "saving", "done") if state in order]
    assert {"starting", "preparing", "training", "done"} <= set(order)


def test_a_finished_training_is_not_started_again(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.create_subject(photos, "duck", "sks", 2)
    studio.start(subject)
    wait_until(lambda: studio.running() is None)
    with pytest.raises(StudioError, match="trained already"):
        studio.start(subject)


def test_one_training_at_a_time(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(pause_s=0.1)
    first, second = (studio.create_subject(photos, noun, "sks", 100) for noun in ("duck", "cat"))
    studio.start(first)
    with pytest.raises(StudioError, match="duck-1 is being trained"):
        studio.start(second)
    with pytest.raises(StudioError, match="duck-1 is being trained"):
        make_studio().start(second)  # another server over the same home


def test_stop_saves_and_start_goes_on(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(pause_s=0.02)
    subject = studio.create_subject(photos, "duck", "sks", 60)
    studio.start(subject)
    wait_until(lambda: studio.status(subject).step >= 3)
    studio.stop(subject)
    assert studio.status(subject).stop_asked
    wait_until(lambda: studio.running() is None)
    stopped = studio.status(subject)
    assert stopped.state == "stopped" and 3 <= stopped.step < 60
    studio.start(subject)
    wait_until(lambda: studio.running() is None)
    assert (studio.status(subject).state, studio.status(subject).stop_asked) == ("done", False)
    assert [step for step, _ in studio.losses(subject)] == list(range(1, 61))


def test_stop_before_the_first_word(make_studio: MakeStudio, photos: list[Path], tmp_path: Path) -> None:
    sleeper = Studio(tmp_path / "home", [sys.executable, "-c", "import time; time.sleep(60)"])
    subject = sleeper.create_subject(photos, "duck", "sks", 60)
    sleeper.start(subject)
    assert sleeper.status(subject).state == "starting"
    sleeper.stop(subject)
    wait_until(lambda: sleeper.running() is None)
    assert sleeper.status(subject).state == "stopped"
    with pytest.raises(StudioError, match="nothing to stop"):
        sleeper.stop(subject)


def test_a_trainer_that_will_not_leave_is_ended_in_the_end(
    make_studio: MakeStudio, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio("hang", 0.02)
    subject = studio.create_subject(photos, "duck", "sks", 1000)
    studio.start(subject)
    wait_until(lambda: studio.status(subject).state == "training")
    studio.stop(subject)
    studio.stop(subject)  # too early for force, and a second signal would end a trainer before it has saved
    assert studio.status(subject).state == "training"
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    studio.stop(subject)
    wait_until(lambda: studio.running() is None)
    assert studio.status(subject).state == "interrupted"


def test_a_vanished_trainer_is_interrupted_and_goes_on(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio("crash")
    subject = studio.create_subject(photos, "duck", "sks", 6)
    studio.start(subject)
    wait_until(lambda: studio.running() is None)
    status = studio.status(subject)
    assert (status.state, status.step) == ("interrupted", 3)
    assert "Press Train to go on" in status.message
    again = make_studio()
    again.start(subject)
    wait_until(lambda: again.running() is None)
    assert again.status(subject).state == "done"


@pytest.mark.parametrize(
    ("mode", "says"),
    [("refuse", "toybox cannot be found"), ("fail", "Halve the learning rate"), ("liar", "no adapter file")],
)
def test_failures_say_why(make_studio: MakeStudio, photos: list[Path], mode: str, says: str) -> None:
    studio = make_studio(mode)
    subject = studio.create_subject(photos, "duck", "sks", 6)
    studio.start(subject)
    wait_until(lambda: studio.running() is None)
    status = studio.status(subject)
    assert status.state == "failed" and says in status.message


def test_a_training_survives_its_server(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.create_subject(photos, "duck", "sks", 40)
    command = [sys.executable, str(FAKE_TRAINER), "ok", "0.03"]
    code = (
        "from pathlib import Path; from dora_diffusion.studio.jobs import Studio;"
        f"Studio(Path({str(studio.home)!r}), {command}).start({subject!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # the server that started it is gone now
    assert studio.running() == subject
    wait_until(lambda: studio.running() is None)
    assert studio.status(subject).state == "done"


def note_job(studio: Studio, subject_id: str, pid: int, born: str | None) -> None:
    """As if ``pid`` had been started as the subject's trainer and had said that it trains."""
    subject = studio.subject(subject_id)
    subject.run_folder.mkdir(exist_ok=True)
    (subject.folder / "job.json").write_text(json.dumps({"pid": pid, "born": born, "stop_asked": None}))
    (subject.run_folder / "status.json").write_text(json.dumps({"state": "training", "step": 5, "pid": pid}))


def test_a_pid_that_was_given_to_another_process_is_not_ours(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.create_subject(photos, "duck", "sks", 60)
    note_job(studio, subject, os.getpid(), birth(os.getpid()))
    assert studio.status(subject).state == "training"
    note_job(studio, subject, os.getpid(), "another birth")
    assert studio.status(subject).state == "interrupted"
    assert studio.running() is None


def test_a_zombie_is_dead(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.create_subject(photos, "duck", "sks", 60)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    note_job(studio, subject, child.pid, birth(child.pid))
    assert studio.status(subject).state == "training"
    child.kill()  # and nobody waits for it
    wait_until(lambda: studio.status(subject).state == "interrupted")
    assert birth(child.pid) is not None  # it is still in the process table
    child.wait()


def test_birth_of_nobody() -> None:
    born = birth(os.getpid())
    assert born is not None and is_alive(os.getpid(), born)
    assert birth(2**22 + 5) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"state": "training", "pid": 1}', '{"state": ["done"]}'])
def test_a_broken_status_file_is_no_word_at_all(make_studio: MakeStudio, photos: list[Path], text: str) -> None:
    studio = make_studio()
    subject = studio.create_subject(photos, "duck", "sks", 60)
    note_job(studio, subject, os.getpid(), birth(os.getpid()))
    (studio.subject(subject).run_folder / "status.json").write_text(text)
    assert studio.status(subject).state == "starting"


def test_losses_skip_what_is_no_number_and_keep_the_last_of_a_step(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    subject = studio.create_subject(photos, "duck", "sks", 60)
    assert studio.losses(subject) == []
    studio.subject(subject).run_folder.mkdir()
    lines = [
        '{"step": 1, "loss": 0.5}',
        '{"step": 2, "loss": NaN}',
        '{"step": 3, "loss": 0.3}',
        "{}",
        "7",
        '{"step": 3, "loss": 0.2}',
        '{"step": 4, "lo',
    ]
    (studio.subject(subject).run_folder / "metrics.jsonl").write_text("\n".join(lines))
    assert studio.losses(subject) == [(1, 0.5), (3, 0.2)]


def test_a_trainer_that_cannot_be_started_is_told(tmp_path: Path, photos: list[Path]) -> None:
    studio = Studio(tmp_path / "home", [str(tmp_path / "no-such-program")])
    subject = studio.create_subject(photos, "duck", "sks", 60)
    with pytest.raises(MachineError, match="cannot be started"):
        studio.start(subject)
    assert studio.status(subject).state == "new"
