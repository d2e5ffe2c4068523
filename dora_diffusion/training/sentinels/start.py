"""At step 0 the adapted model is the base, bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dora_diffusion.adapters import Adapter
from dora_diffusion.errors import TrainingError
from dora_diffusion.training.events import Note
from dora_diffusion.training.sentinels.sentinel import Sentinel


class Start(Sentinel):
    """A fresh adapter adds nothing: what differs at step 0 is an error of the arithmetic that training would learn."""

    def before_run(self) -> None:
        if self.progress.step > 0:
            return
        adapted = self._prediction()
        with _without(self.progress.adapter):
            plain = self._prediction()
            again = plain if torch.equal(adapted, plain) else self._prediction()
        if torch.equal(adapted, plain):
            return
        worst = (adapted - plain).abs().max().item()
        if not torch.equal(again, plain):
            self.watched.tell(
                Note(
                    "This device gives the base's own output differently each time, so whether the fresh adapter "
                    f"changes it cannot be told (it differs by {worst:.2g})."
                )
            )
            return
        raise TrainingError(
            f"The fresh adapter changes the base's output by {worst:.2g}, and must not change a bit of it: its B is 0. "
            "The magnitudes or the weights they belong to were changed after the adapter was made, or the adapter's "
            "arithmetic is wrong on this device. Try --mixed_precision no, and --attention sdpa; --kind lora has no "
            "magnitudes. --no_sentinels trains all the same."
        )

    @torch.no_grad()
    def _prediction(self) -> Tensor:
        """Of the run's first micro-batch, its text encoded by what is in the model now."""
        batch = self.watched.batches.batch(0, 0)
        return self.watched.base.predict(batch.latents, batch.timesteps, batch.conditioning).float()


@contextmanager
def _without(adapter: Adapter) -> Iterator[None]:
    """The base alone: its own layers stand where the adapter's stood."""
    adapter.eject()
    try:
        yield
    finally:
        for plan in adapter.plans:
            plan.replace(adapter.layers[plan.name])
