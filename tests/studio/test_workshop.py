"""The workshop's client: one process, one order at a time, and nothing that happens to it is silent."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shop import FAKE_WORKSHOP, fake_workshop

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.workshop import COMMAND, StoppedError, Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = fake_workshop(tmp_path, 0.01)
    yield made
    made.close()


def wait_for(condition: Callable[[], Any], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def draw(folder: Path, steps: int = 3, files: int = 1) -> dict[str, Any]:
    names = [{"seed": k, "path": str(folder / f"{k}.png"), "thumb": str(folder / f"{k}.jpg")} for k in range(files)]
    wanted = {"width": 8, "height": 8, "strength": 1, "prompt": "p", "remember": {}}
    return {**wanted, "num_inference_steps": steps, "files": names}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_process_starts_with_the_first_order_and_stays(workshop: Workshop) -> None:
    assert not workshop.is_running and workshop.pid is None
    first = workshop.call("echo", {"said": "ünïcödé\n"})
    assert first["said"] == "ünïcödé\n" and first["pid"] == workshop.pid
    assert workshop.call("echo")["pid"] == first["pid"]
    assert workshop.is_running and not workshop.is_busy


def test_events_come_while_the_order_is_worked_on(workshop: Workshop, tmp_path: Path) -> None:
    events: list[Any] = []
    workshop.call("draw", draw(tmp_path, files=2), events.append)
    assert [e["done"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [e["index"] for e in events if e["event"] == "picture"] == [0, 1]


def test_what_is_not_an_answer_is_passed_over(workshop: Workshop) -> None:
    assert workshop.call("babble")["task"] == "babble"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("refuse", "^That cannot be done.$"),
        ("break", "Something went wrong: KeyError: 'lost'. Details are in app.log."),
    ],
)
def test_refusals_and_faults_are_told_and_the_process_lives(workshop: Workshop, task: str, says: str) -> None:
    pid = workshop.call("echo")["pid"]
    with pytest.raises(StudioError, match=says):
        workshop.call(task)
    assert workshop.call("echo")["pid"] == pid


def test_a_process_that_dies_is_told_plainly_and_the_next_order_starts_a_new_one(workshop: Workshop) -> None:
    pid = workshop.call("echo")["pid"]
    with pytest.raises(StudioError, match=r"ended unexpectedly \(ended by signal 9, the system, mostly because memory"):
        workshop.call("die")
    assert not workshop.is_running and not workshop.is_busy
    assert workshop.call("echo")["pid"] != pid
    assert "about to die" in workshop.log_file.read_text()
    with pytest.raises(StudioError, match=r"with status 3\). Try again"):
        workshop.call("leave")


def test_one_that_died_while_it_had_nothing_to_do_is_replaced_without_a_word(workshop: Workshop) -> None:
    pid = workshop.call("echo")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not workshop.is_running)
    assert workshop.call("echo")["pid"] != pid


def test_a_command_that_cannot_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="cannot be started"):
        Workshop(tmp_path / "log", [str(tmp_path / "nothing")]).call("echo")
    with pytest.raises(StudioError, match="ended unexpectedly|ends as soon as"):
        Workshop(tmp_path / "log", [sys.executable, "-c", "pass"]).call("echo")


def test_stop_reaches_it_between_steps(workshop: Workshop, tmp_path: Path) -> None:
    stop = threading.Event()
    steps: list[int] = []

    def listen(event: Any) -> None:
        steps.append(event.get("done", 0))
        if len(steps) == 3:
            stop.set()

    began = time.monotonic()
    with pytest.raises(StoppedError, match="Stopped"):
        workshop.call("draw", draw(tmp_path, steps=2000), listen, stop)
    assert time.monotonic() - began < 5 and len(steps) < 100
    assert workshop.call("echo")["pid"] == workshop.pid


def test_one_that_does_not_listen_is_ended(tmp_path: Path) -> None:
    workshop, stop = fake_workshop(tmp_path, patience_s=0.2), threading.Event()
    with pytest.raises(StoppedError, match="its process was ended"):
        workshop.call("hang", {}, lambda event: stop.set(), stop)
    assert not workshop.is_running
    workshop.close()


def test_a_listener_that_raises_leaves_no_order_behind(workshop: Workshop, tmp_path: Path) -> None:
    def listen(event: Any) -> None:
        raise ZeroDivisionError

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        workshop.call("draw", draw(tmp_path, steps=2000), listen)
    pid = workshop.pid
    assert workshop.call("echo")["pid"] == pid and time.monotonic() - began < 5


def test_orders_wait_in_line_and_the_first_comes_first(workshop: Workshop, tmp_path: Path) -> None:
    served: list[int] = []
    begun = threading.Event()

    def order(number: int) -> None:
        workshop.call("draw", draw(tmp_path, steps=20 if number == 0 else 1), lambda event: begun.set())
        served.append(number)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=order, args=[number]))
        threads[-1].start()
        begun.wait(10)
        wait_for(lambda number=number: workshop.waiting == number or served)
    assert workshop.is_busy
    for thread in threads:
        thread.join(20)
    assert served == [0, 1, 2, 3, 4] and workshop.waiting == 0


def test_a_training_that_needs_the_memory_comes_before_those_that_wait(workshop: Workshop, tmp_path: Path) -> None:
    begun = threading.Event()
    pids: list[int] = []
    first = threading.Thread(target=lambda: workshop.call("draw", draw(tmp_path, 30), lambda event: begun.set()))
    first.start()
    assert begun.wait(10)
    pid = workshop.pid
    waits = threading.Thread(target=lambda: pids.append(workshop.call("echo")["pid"]))
    waits.start()
    wait_for(lambda: workshop.waiting == 1)
    assert workshop.release() and pid is not None and gone(pid)
    first.join(10)
    waits.join(10)
    assert pids and pids[0] != pid, "who waited was served by a new process"


def test_one_that_waits_can_leave_the_line(workshop: Workshop, tmp_path: Path) -> None:
    begun, stop, first_stop = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with pytest.raises(StoppedError):
            workshop.call("draw", draw(tmp_path, steps=2000), lambda event: begun.set(), first_stop)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(StoppedError):
        workshop.call("echo", {}, None, stop)
    assert workshop.waiting == 0 and workshop.is_busy
    assert not workshop.release(timeout_s=0.1), "it is busy, and is left"
    first_stop.set()
    thread.join(10)
    pid = workshop.pid
    assert pid is not None and workshop.release() and gone(pid)
    assert workshop.call("echo")["pid"] != pid, "released is not closed"


def test_closed_it_takes_no_orders_and_leaves_no_process(workshop: Workshop, tmp_path: Path) -> None:
    begun = threading.Event()
    said: list[str] = []

    def order() -> None:
        with pytest.raises(StudioError) as caught:
            workshop.call("draw", draw(tmp_path, steps=2000), lambda event: begun.set())
        said.append(str(caught.value))

    thread = threading.Thread(target=order)
    thread.start()
    assert begun.wait(10)
    pid = workshop.pid
    workshop.close()
    thread.join(10)
    assert said == ["The studio is closing; the order was not finished."]
    assert pid is not None and gone(pid)
    with pytest.raises(StudioError, match="closing"):
        workshop.call("echo")


def test_closed_its_siblings_are_closed_too(workshop: Workshop) -> None:
    sibling = workshop.sibling({"HF_HUB_OFFLINE": "0"})
    pid = sibling.call("echo")["pid"]
    workshop.call("echo")
    assert pid != workshop.pid
    workshop.close()
    assert gone(pid)
    with pytest.raises(StudioError, match="closing"):
        sibling.call("echo")


@pytest.mark.parametrize("command", [[sys.executable, str(FAKE_WORKSHOP)], list(COMMAND)], ids=["fake", "real"])
def test_it_ends_when_its_server_is_killed(tmp_path: Path, command: list[str]) -> None:
    server = (
        "import sys, pathlib, threading\n"
        "from dora_diffusion.studio.workshop import Workshop\n"
        f"workshop = Workshop(pathlib.Path({str(tmp_path / 'log')!r}), {command!r})\n"
        "try: workshop.call('nothing of that name')\n"
        "except Exception as error: pass\n"
        "print(workshop.pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    assert not gone(pid)
    child.kill()
    child.wait()
    child.stdout.close()
    wait_for(lambda: gone(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_the_server_loads_nothing_heavy() -> None:
    modules = "workshop, orders, pictures, prompts, comparisons, exports, bases, estimates, tasks"
    code = f"import sys; from dora_diffusion.studio import {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "diffusers", "transformers", "gradio", "safetensors"} & set(done.stdout.split())


def test_every_task_is_there() -> None:
    from dora_diffusion.studio.tasks import TASKS

    for name in TASKS:
        assert callable(TASKS.load(name))
