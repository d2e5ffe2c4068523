"""Whatever is killed and whenever: no job lost, none run twice, none shown wrongly, the same bytes at the end."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from dora_diffusion.studio import process
from dora_diffusion.studio.studio import Studio

SERVER = Path(__file__).with_name("serve_home.py")
STEPS = 40


class Machine:
    """A home, its server as a process of its own, and a viewer that schedules nothing: a page, or a second browser."""

    def __init__(self, home: Path, pause_s: float):
        self.home, self.pause_s = home, pause_s
        self.viewer = Studio(home)
        self.server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(SERVER), str(self.home), "ok", str(self.pause_s)]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def alive_file(self, id: str) -> Path:
        return self.viewer.home.path_of("job", id) / "alive"

    def kill_trainer(self) -> int:
        """End the trainer that runs, if one does. Returns: how many there were."""
        living = [job.id for job in self.viewer.jobs.list() if process.is_held(self.alive_file(job.id))]
        pids = [process.pid_in(self.alive_file(id)) for id in living]
        for pid in pids:
            if pid is not None:
                process.send(pid, signal.SIGKILL)
        return len(pids)

    def trains(self) -> bool:
        return any(process.is_held(self.alive_file(job.id)) for job in self.viewer.jobs.list())

    def says_what_is(self) -> bool:
        """Whether every job's state fits to whether its trainer lives."""
        return all(job.is_active == process.is_held(self.alive_file(job.id)) for job in self.viewer.jobs.list())

    def resume_interrupted(self) -> None:
        for job in self.viewer.jobs.list():
            assert job.state in ("queued", "starting", "running", "saving", "done", "interrupted"), job
            if job.state == "interrupted":
                assert job.failure is not None and [r.name for r in job.failure.remedies] == ["resume"]
                self.viewer.jobs.resume(job.id)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "home", 0.03)
    yield made
    if made.server is not None:
        made.server.kill()
        made.server.wait()
    made.kill_trainer()


def enqueue(studio: Studio, photos: list[Path], noun: str) -> str:
    subject = studio.subjects.create(photos, "", noun)
    return studio.jobs.enqueue(subject.id, "quick", {"run.max_train_steps": STEPS}).id


def undisturbed(folder: Path) -> bytes:
    """What the fake trainer learns from a job's photos when nobody disturbs it."""
    photos = sorted((folder / "photos").glob("*.jpg"))
    digest = hashlib.sha256(b"".join(photo.read_bytes() for photo in photos)).hexdigest()
    for step in range(1, STEPS + 1):
        digest = hashlib.sha256(f"{digest} {step}".encode()).hexdigest()
    return digest.encode()


def check_all(machine: Machine, ids: list[str]) -> None:
    for id in ids:
        folder = machine.viewer.home.path_of("job", id)
        assert machine.viewer.jobs.adapter(id).read_bytes() == undisturbed(folder)
        assert [step for step, _ in machine.viewer.jobs.losses(id)] == list(range(1, STEPS + 1))
        assert not (folder / "TWICE").exists()
        assert machine.viewer.jobs.checkpoints(id)[-1] == STEPS


def killed_at_random(machine: Machine, photos: list[Path], times: int, seed: int) -> None:
    draw = random.Random(seed)
    ids = [enqueue(machine.viewer, photos, noun) for noun in ("duck", "cat", "mug")]
    kinds = ["server", "trainer", "both"]
    ended = 0
    machine.start()
    for number in range(times):
        if draw.random() < 0.7:  # else whatever happens to be so: a server that has only begun
            wait_until(machine.trains, 20)
        time.sleep(draw.uniform(0.0, 1.2))
        kind = kinds[number % 3]
        if kind != "trainer":
            machine.kill_server()
        if kind != "server":
            ended += machine.kill_trainer()
        wait_until(machine.says_what_is, 5)
        if kind != "trainer":
            machine.start()
        wait_until(machine.says_what_is, 5)
        machine.resume_interrupted()
        if sum(job.state == "done" for job in machine.viewer.jobs.list()) > len(ids) - 2:
            ids.append(enqueue(machine.viewer, photos, f"robot {number}"))

    def all_done() -> bool:
        machine.resume_interrupted()
        return all(machine.viewer.jobs.get(id).state == "done" for id in ids)

    wait_until(all_done, 120)
    assert sorted(job.id for job in machine.viewer.jobs.list()) == sorted(ids)
    check_all(machine, ids)
    assert ended >= times // 4, "the kills met no trainers"


def test_three_random_kills(machine: Machine, photos: list[Path]) -> None:
    killed_at_random(machine, photos, 3, seed=6)


@pytest.mark.slow
def test_thirty_random_kills(machine: Machine, photos: list[Path]) -> None:
    killed_at_random(machine, photos, 30, seed=7)


def test_a_training_outlives_its_server_and_is_adopted(machine: Machine, photos: list[Path]) -> None:
    id = enqueue(machine.viewer, photos, "duck")
    waits = enqueue(machine.viewer, photos, "cat")
    machine.start()
    wait_until(lambda: machine.viewer.jobs.get(id).state == "running")
    machine.kill_server()
    pid = process.pid_in(machine.alive_file(id))
    assert machine.viewer.jobs.get(id).state == "running"
    machine.start()
    wait_until(lambda: machine.viewer.jobs.get(id).state == "done")
    assert machine.viewer.jobs.get(id).attempt == 1 and process.pid_in(machine.alive_file(id)) == pid
    wait_until(lambda: machine.viewer.jobs.get(waits).state == "done")


def test_an_adopted_training_can_be_cancelled(machine: Machine, photos: list[Path]) -> None:
    id = enqueue(machine.viewer, photos, "duck")
    machine.start()
    wait_until(lambda: machine.viewer.jobs.get(id).step >= 2)
    machine.kill_server()
    machine.viewer.jobs.cancel(id)  # while there is nobody to send the signal
    machine.start()
    wait_until(lambda: machine.viewer.jobs.get(id).state == "cancelled")
    assert machine.viewer.jobs.get(id).step < STEPS


def test_a_training_that_ended_while_nobody_looked_is_done(machine: Machine, photos: list[Path]) -> None:
    id = enqueue(machine.viewer, photos, "duck")
    machine.start()
    wait_until(lambda: machine.viewer.jobs.get(id).state == "running")
    machine.kill_server()
    wait_until(lambda: not process.is_held(machine.alive_file(id)))
    assert machine.viewer.jobs.get(id).state == "done"


Crash = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("where", ["claim", "launch"])
def test_a_crash_around_the_launch_leaves_nothing_twice(
    make_studio: Callable[..., Studio], photos: list[Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A server that dies before its trainer has started, or right after, before it has noted whom it started."""
    studio = make_studio(pause_s=0.02, start=False)
    id = enqueue(studio, photos, "duck")
    trainers, launch = studio.trainers, studio.trainers.launch

    def dies(*values: object) -> int:
        if where == "launch":
            launch(*values)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(trainers, "launch", dies)
    with pytest.raises(KeyboardInterrupt):
        studio.scheduler.turn()
    studio.close()
    monkeypatch.setattr(trainers, "launch", launch)
    after = make_studio(pause_s=0.02)
    if where == "claim":
        assert after.jobs.get(id).state == "interrupted"
        after.jobs.resume(id)
    else:
        assert after.jobs.get(id).is_active
    wait_until(lambda: after.jobs.get(id).state == "done")
    folder = after.home.path_of("job", id)
    assert not (folder / "TWICE").exists()
    assert after.jobs.adapter(id).read_bytes() == undisturbed(folder)


def test_a_half_made_job_is_cleared_away(make_studio: Callable[..., Studio], photos: list[Path]) -> None:
    studio = make_studio(start=False)
    subject = studio.subjects.create(photos, "", "duck")
    config = studio.jobs.config(subject.id, "quick")
    studio.jobs._draft(subject, "quick", {}, config, "")  # and the server dies
    assert studio.jobs.list() == []
    studio.start()
    assert list((studio.home.path / "jobs").iterdir()) == []
    id = enqueue(studio, photos, "cat")
    wait_until(lambda: studio.jobs.get(id).state == "done")
