"""``dora-diffusion train [CONFIG.yaml] [flags]``, the same as ``accelerate launch scripts/train_dreambooth_dora.py``."""

import signal
import threading
from types import FrameType

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import DoraError


def run(arguments: list[str]) -> int:
    """Parse and train; SIGINT and SIGTERM save a checkpoint and leave."""
    return run_config(parse(TrainConfig, arguments, "train"))


def run_config(config: TrainConfig) -> int:
    """Train with the terminal's listeners."""
    from dora_diffusion.training import train
    from dora_diffusion.training.listeners import MetricsFile, ProgressBar, StatusFile, everyone

    folder = config.run.output_dir
    status = StatusFile(folder, config.run.max_train_steps)
    stop = stop_on_signals()
    try:
        train(config, everyone(ProgressBar(), MetricsFile(folder), status), stop.is_set)
    except DoraError as error:
        status.failed(str(error))
        raise
    return 0


def stop_on_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; the second ends the process at once."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return stop
