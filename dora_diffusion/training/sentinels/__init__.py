"""What goes wrong in a run without a word elsewhere: one check a file, each with cause and remedy.

They are cheap enough to stay on: none of them waits for the device in a step, and those that look at tensors end after
twenty steps.
"""

from dora_diffusion.training.sentinels.finite import Finite
from dora_diffusion.training.sentinels.life import Life
from dora_diffusion.training.sentinels.precision import Precision
from dora_diffusion.training.sentinels.rate import Rate
from dora_diffusion.training.sentinels.sentinel import Sentinel, Watched
from dora_diffusion.training.sentinels.start import Start
from dora_diffusion.training.sentinels.words import Words
from dora_diffusion.training.stepper import Losses

__all__ = ["Sentinels", "Watched"]

ALL = (Precision, Words, Start, Rate, Finite, Life)


class Sentinels(Sentinel):
    """Every check over one run, or none where ``--no_sentinels`` was given."""

    def __init__(self, watched: Watched):
        super().__init__(watched)
        self._checks = [check(watched) for check in ALL] if watched.config.run.sentinels else []

    def before_run(self) -> None:
        for check in self._checks:
            check.before_run()

    def before_step(self) -> None:
        for check in self._checks:
            check.before_step()

    def after_step(self, losses: Losses) -> None:
        for check in self._checks:
            check.after_step(losses)

    def before_save(self) -> None:
        for check in self._checks:
            check.before_save()
