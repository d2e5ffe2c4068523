"""``dora-diffusion train [CONFIG.yaml] [flags]``, which ``scripts/train_dreambooth_dora.py`` runs too."""

from collections.abc import Sequence

from dora_diffusion.cli.diffusers_command import read_command, settle
from dora_diffusion.cli.parse import parse
from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import DoraError
from dora_diffusion.machine import is_first_process, stop_on_signals


def run(arguments: list[str]) -> int:
    """Parse and train. SIGINT and SIGTERM save a checkpoint and leave; the exit status is then 130 or 143."""
    config, notes = parse_command(arguments)
    return run_config(config, notes)


def parse_command(arguments: list[str]) -> tuple[TrainConfig, list[str]]:
    """The settings of a command line, one for diffusers' scripts too, and what its user should read first.

    Raises:
        ConfigError: a flag or value is none, or asks for what is not done here.
    """
    command = read_command(arguments)
    return settle(command, parse(TrainConfig, command.arguments, "train"))


def run_config(config: TrainConfig, notes: Sequence[str] = ()) -> int:
    """Train with the terminal's listeners; ``notes`` are told first.

    Returns:
        0; 128 and the signal's number after a stop, though all is saved: the run has not come to its end.
    """
    from dora_diffusion.training import train
    from dora_diffusion.training.events import Note
    from dora_diffusion.training.listeners import MetricsFile, ProgressBar, StatusFile, everyone

    folder = config.run.output_dir
    status = StatusFile(folder, config.run.max_train_steps)
    bar = ProgressBar()
    if is_first_process():
        for note in notes:
            bar(Note(note))
    if config.run.plan_only:
        train(config, bar)
        return 0
    with stop_on_signals() as stop:
        try:
            result = train(config, everyone(bar, MetricsFile(folder), status), stop.is_set)
        except Exception as error:
            known = isinstance(error, DoraError)
            status.failed(str(error) if known else f"The trainer broke ({type(error).__name__}); its log says where.")
            raise
        finally:
            bar.close()
    return stop.status if result.stopped else 0
