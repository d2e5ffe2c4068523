"""One thread starts and ends trainings; one instance of a home does."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import wait_until

from dora_diffusion.errors import StudioError
from dora_diffusion.studio import process, queue
from dora_diffusion.studio.scheduler import Scheduler
from dora_diffusion.studio.studio import Studio
from dora_diffusion.studio.trainers import Trainers

MakeStudio = Callable[..., Studio]


def enqueue(studio: Studio, photos: list[Path], steps: int = 12, noun: str = "duck") -> str:
    subject = studio.subjects.create(photos, "", noun)
    return studio.jobs.enqueue(subject.id, "quick", {"run.max_train_steps": steps}).id


def state(studio: Studio, id: str) -> str:
    return studio.jobs.get(id).state


def test_one_at_a_time_in_order(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio()
    ids = [enqueue(studio, photos, 8, noun) for noun in ("duck", "cat", "mug")]
    most = 0

    def all_done() -> bool:
        nonlocal most
        most = max(most, sum(job.is_active for job in studio.jobs.current()))
        return all(state(studio, id) == "done" for id in ids)

    wait_until(all_done)
    assert most == 1
    started = [studio.jobs.get(id).started or 0 for id in ids]
    assert started == sorted(started)
    assert studio.jobs.current() == []


def with_slots(studio: Studio, names: tuple[str, ...], before_gpu: Callable[[], None]) -> Scheduler:
    """A scheduler for a machine with GPUs, over a studio whose own was not started."""
    trainers = studio.trainers
    return Scheduler(
        studio.home, studio.database, studio.subjects, studio.jobs, studio.board, trainers, names, before_gpu
    )


def test_one_a_gpu_and_room_is_made_before(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio, made_room = make_studio(pause_s=0.05, start=False), []
    scheduler = with_slots(studio, ("0", "1"), lambda: made_room.append(len(studio.board.active_rows())))
    ids = [enqueue(studio, photos, 200, noun) for noun in ("duck", "cat", "mug")]
    scheduler.turn()
    assert [state(studio, id) == "queued" for id in ids] == [False, False, True]
    assert made_room == [1, 2]  # the row is claimed, the trainer not yet started
    slots = {row["slot"] for row in studio.board.active_rows()}
    assert slots == {"0", "1"}
    environments = [Path(f"/proc/{row['pid']}/environ").read_bytes().split(b"\0") for row in studio.board.active_rows()]
    assert sorted(next(v for v in e if v.startswith(b"CUDA_VISIBLE")) for e in environments) == [
        b"CUDA_VISIBLE_DEVICES=0",
        b"CUDA_VISIBLE_DEVICES=1",
    ]
    studio.jobs.cancel(ids[0])
    wait_until(lambda: scheduler.turn() or state(studio, ids[2]) != "queued")
    assert state(studio, ids[0]) == "cancelled"
    scheduler.close()


def test_a_second_instance_only_shows_and_takes_over(make_studio: MakeStudio, photos: list[Path]) -> None:
    first, second = make_studio(pause_s=0.05), make_studio()
    assert (first.is_read_only, second.is_read_only) == (False, True)
    id = enqueue(first, photos, 100)
    wait_until(lambda: state(second, id) == "running")
    for do in (
        lambda: second.jobs.cancel(id),
        lambda: second.subjects.draft(),
        lambda: second.subjects.create(photos, "", "cat"),
        lambda: second.subjects.rename("duck-1", "Rex"),
    ):
        with pytest.raises(StudioError, match="Another instance"):
            do()
    first.close()
    wait_until(lambda: not second.is_read_only)
    second.jobs.cancel(id)
    wait_until(lambda: state(second, id) == "cancelled")


def test_a_trainer_that_will_not_leave_is_ended(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio("hang", 0.02)
    studio.scheduler.patience_s = 0.6
    id = enqueue(studio, photos, 5000)
    wait_until(lambda: state(studio, id) == "running")
    began = time.monotonic()
    studio.jobs.cancel(id)
    wait_until(lambda: state(studio, id) == "cancelled")
    assert time.monotonic() - began > 0.5
    assert not process.is_held(studio.home.path_of("job", id) / "alive")


def test_stop_before_the_first_word(make_studio: MakeStudio, photos: list[Path], tmp_path: Path) -> None:
    sleeper = Studio(tmp_path / "home", [sys.executable, "-c", "import time; time.sleep(60)"])
    sleeper.start()
    try:
        id = enqueue(sleeper, photos)
        wait_until(lambda: state(sleeper, id) == "starting")
        sleeper.jobs.cancel(id)
        wait_until(lambda: state(sleeper, id) == "cancelled", 5)
    finally:
        sleeper.close()


def test_what_a_trainer_started_goes_with_it_when_it_is_ended(
    make_studio: MakeStudio, photos: list[Path], tmp_path: Path
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    studio = Studio(tmp_path / "home", [sys.executable, str(script)])
    studio.scheduler.patience_s = 0.3
    studio.start()
    try:
        id = enqueue(studio, photos)
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        studio.jobs.cancel(id)
        wait_until(lambda: state(studio, id) == "cancelled")
        wait_until(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text()}/cmdline").exists(), 5)
    finally:
        studio.close()


def test_a_trainer_that_cannot_be_started_is_told_and_the_queue_goes_on(
    make_studio: MakeStudio, photos: list[Path], tmp_path: Path
) -> None:
    studio = Studio(tmp_path / "home", [str(tmp_path / "no-such-program")])
    ids = [enqueue(studio, photos, noun=noun) for noun in ("duck", "cat")]
    studio.start()
    try:
        wait_until(lambda: all(state(studio, id) == "failed" for id in ids))
    finally:
        studio.close()
    failure = studio.jobs.get(ids[0]).failure
    assert failure is not None and "cannot be started" in failure.message
    assert [remedy.name for remedy in failure.remedies] == ["retry"]


def test_a_cancelled_job_is_not_claimed(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio = make_studio(start=False)
    id = enqueue(studio, photos)
    studio.jobs.cancel(id)
    with studio.database.transaction() as connection:
        assert not queue.claim(connection, 1, "cpu", None)
    assert state(studio, id) == "cancelled"


def test_a_job_is_claimed_once(make_studio: MakeStudio, photos: list[Path]) -> None:
    studio, won = make_studio(start=False), []
    enqueue(studio, photos)

    def claim() -> None:
        with studio.database.transaction() as connection:
            won.append(queue.claim(connection, 1, "cpu", None))

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 5 + [True]


def test_the_lock_of_a_trainer_says_whether_it_lives(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    assert not process.is_held(alive)
    descriptor = process.take(alive)
    assert descriptor is not None and process.is_held(alive)
    child = process.spawn([sys.executable, "-c", "input()"], descriptor, tmp_path / "log", {})
    Trainers.release(descriptor)
    child.kill()  # and nobody reaps it: a zombie holds nothing
    wait_until(lambda: not process.is_held(alive))
    assert Path(f"/proc/{child.pid}").exists()
    child.wait()


def test_the_first_word_of_a_trainer_is_its_pid(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    descriptor = process.take(alive)
    assert descriptor is not None
    code = (
        "import subprocess, os; from dora_diffusion.studio.process import say_alive; say_alive();"
        "subprocess.Popen(['sleep', '60'], close_fds=False); print(os.environ.get('DORA_STUDIO_ALIVE'))"
    )
    child = process.spawn([sys.executable, "-c", code], descriptor, tmp_path / "log", {})
    Trainers.release(descriptor)
    child.wait()
    assert process.pid_in(alive) == child.pid
    # What it started does not keep it alive. Wait a moment: a kernel wakes who starts a program before it has closed
    # the descriptors that the program does not inherit; the sleep itself would hold them for a minute.
    wait_until(lambda: not process.is_held(alive), timeout_s=10)
    assert (tmp_path / "log").read_text() == "None\n"
    process.send(child.pid, signal.SIGKILL, group=True)


def test_a_turn_that_fails_does_not_end_the_scheduler(
    make_studio: MakeStudio, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio()
    monkeypatch.setattr(studio.subjects, "purge", lambda now: 1 / 0)
    note = studio.board.note
    monkeypatch.setattr(studio.board, "note", lambda id: (_ for _ in ()).throw(OSError("disk gone")))
    id = enqueue(studio, photos, 60)
    log = studio.home.log_file
    wait_until(lambda: log.exists() and "disk gone" in log.read_text())
    monkeypatch.setattr(studio.board, "note", note)
    wait_until(lambda: state(studio, id) == "done")
