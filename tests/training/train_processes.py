"""Training in processes of its own, as a user starts it."""

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from training_runs import PHOTOS

from dora_diffusion.training.run_folder import METRICS

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_dreambooth_dora.py"
COMMAND = [sys.executable, "-m", "dora_diffusion.cli", "train"]


def launched(processes: int) -> list[str]:
    """``accelerate launch`` of the script on the CPU; ``--multi_gpu`` is its word for several processes of any kind."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
    several = ["--multi_gpu", "--main_process_port", str(_free_port())] if processes > 1 else ["--cpu"]
    return [*launcher, *several, "--num_processes", str(processes), "--dynamo_backend", "no", str(SCRIPT)]


def flags(output_dir: Path, steps: int, *more: str) -> list[str]:
    """The flags of ``small_config``."""
    photos = ["--instance_data_dir", str(PHOTOS), "--class_noun", "teapot", "--resolution", "64"]
    how = [
        "--rank",
        "4",
        "--learning_rate",
        "1e-3",
        "--cpu",
        "--max_train_steps",
        str(steps),
        "--checkpointing_steps",
        str(steps),
    ]
    return [*photos, *how, "--output_dir", str(output_dir), *more]


def prior_flags(folder: Path, count: int = 2) -> list[str]:
    """The flags of ``small_prior``."""
    quick = ["--num_class_images", str(count), "--class_images_steps", "2"]
    return ["--with_prior_preservation", *quick, "--class_data_dir", str(folder)]


def finish(command: Sequence[str]) -> str:
    """Run a command to its end, which must be a good one; what it said."""
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running command, killed at the end of the block if it still runs."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=_environment(), stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_step(
    process: subprocess.Popen[bytes], folder: Path, step: int, timeout_s: float = 120, until: float = math.inf
) -> None:
    """Return when step ``step`` is in the metrics file, the process has ended, or ``time.monotonic()`` is ``until``."""
    end = time.monotonic() + timeout_s
    while process.poll() is None and steps_logged(folder) < step and time.monotonic() < until:
        assert time.monotonic() < end, f"step {step} was not reached in {timeout_s} s"
        time.sleep(0.005)


def steps_logged(folder: Path) -> int:
    """How many rows the metrics file has."""
    file = folder / METRICS
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
