"""What a training will take, told before it starts: from trainings that were done here, else from two steps of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dora_diffusion.studio.workshop import Workshop

if TYPE_CHECKING:
    from dora_diffusion.config import TrainConfig
    from dora_diffusion.studio.database import Database


@dataclass(frozen=True)
class Estimate:
    """Time and memory.

    Args:
        seconds: of the whole training, loading and previews included where that was measured.
        memory_gib: at its peak, of ``total_gib``.
        source: "12 earlier trainings here" or "a two-step measurement".
    """

    seconds: float
    memory_gib: float
    total_gib: float
    source: str

    @property
    def words(self) -> str:
        """ "about 3 min, 7.2 GiB of 24 GiB"."""
        raise NotImplementedError

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return self.memory_gib <= self.total_gib


class Estimates:
    """Tells what trainings take."""

    def __init__(self, db: "Database", workshop: Workshop):
        self.workshop = workshop

    def of(self, config: "TrainConfig") -> Estimate | None:
        """What a training with this config (``jobs.config(...)``) takes; None while it is being measured.

        Never waits: a measurement that is needed is begun in the background, and asked for again it is there.
        """
        raise NotImplementedError

    def measure(self, config: "TrainConfig") -> Estimate:
        """The same, and waits for it.

        Raises:
            StudioError: the two steps failed; the message says why.
        """
        raise NotImplementedError
