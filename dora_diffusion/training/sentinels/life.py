"""Every trained tensor gets a gradient and moves, magnitudes included."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dora_diffusion.adapters.adapter import TOKENS
from dora_diffusion.errors import TrainingError
from dora_diffusion.training.sentinels.sentinel import Sentinel, Watched
from dora_diffusion.training.stepper import Losses

STEPS = 20
_SHOWN = 3


class Life(Sentinel):
    """A layer that no output depends on, a cast, a rate of 0: the run goes on, and a part of the adapter never learns.

    What has shown life is kept in the record, so that a run in parts is judged as one: over its first twenty steps, or
    at its last one. ``A`` is judged from the second step that moves: before it ``B`` is 0, and so is its gradient.
    """

    def __init__(self, watched: Watched):
        super().__init__(watched)
        self._rates: dict[str, float] = {}
        self._start: dict[tuple[str, ...], Tensor] = {}
        self._seen: dict[tuple[str, ...], Tensor] = {}

    def before_run(self) -> None:
        record = self.progress.record
        if record.watched >= STEPS:
            return
        for names, value, gradient in self._stacks():
            fresh = record.watched == 0
            quiet = [name for name in names if fresh or name in record.without_gradient]
            if not fresh and not quiet and not set(names) & set(record.unmoved):
                continue
            self._start[names] = value.detach().to("cpu", copy=True)
            self._seen[names] = torch.tensor([name not in quiet for name in names], device=gradient.device)
        if record.watched == 0:
            names_of_all = [name for names in self._start for name in names]
            record.without_gradient, record.unmoved = names_of_all, list(names_of_all)

    def before_step(self) -> None:
        if self.progress.record.watched < STEPS:
            self._rates = self._rates_by_component()

    def after_step(self, losses: Losses) -> None:
        record = self.progress.record
        if record.watched >= STEPS:
            return
        record.watched += 1
        if losses.applied:
            trained = self._trained()
            for component, rate in self._rates.items():
                record.moving[component] = record.moving.get(component, 0) + (rate > 0 and component in trained)
            for names, _, gradient in self._stacks():
                if names in self._seen:
                    self._seen[names] |= gradient.flatten(1).any(1)
        if record.watched == STEPS or self.progress.step == self.watched.config.run.max_train_steps:
            self._judge()

    def before_save(self) -> None:
        """Ask the device once: which tensors have had no gradient yet, and which are where they were."""
        if not self._start:
            return
        record = self.progress.record
        silent, still = set(record.without_gradient), set(record.unmoved)
        for names, value, _ in self._stacks():
            if names in self._start:
                now = value.detach().cpu()
                moved = (now != self._start[names]).flatten(1).any(1).tolist()
                silent -= {name for name, seen in zip(names, self._seen[names].tolist(), strict=True) if seen}
                still -= {name for name, did in zip(names, moved, strict=True) if did}
        record.without_gradient = [name for name in record.without_gradient if name in silent]
        record.unmoved = [name for name in record.unmoved if name in still]

    def _judge(self) -> None:
        self.before_save()
        record = self.progress.record
        silent = [name for name in record.without_gradient if self._had_time(name)]
        still = [name for name in record.unmoved if self._had_time(name)]
        at_rest = {_component(name) for name in record.unmoved} & self._trained()
        frozen = sorted(component for component in at_rest if not record.moving.get(component))
        if record.watched == STEPS:
            self._start.clear()
            self._seen.clear()
        if silent:
            raise TrainingError(
                f"{_some(silent)} had no gradient in {record.watched} steps: no output depends on it, so it would "
                "never learn. Leave the layer out (--targets, --text_encoder_targets take a regex); a text encoder "
                "that is not used needs no --train_text_encoder. --no_sentinels trains all the same."
            )
        if still:
            raise TrainingError(
                f"{_some(still)} had a gradient and did not move in {record.watched} steps: the update is lost before "
                "it arrives (a learning rate far too small, a parameter that was cast, or an optimizer that does not "
                f"hold it). {self._faster()}"
            )
        if frozen and record.watched == STEPS:
            raise TrainingError(
                f"The learning rate of {' and '.join(frozen)} was 0 in all of the first {STEPS} steps: nothing moved. "
                "Check --lr_scheduler, --lr_warmup_steps and the learning rates."
            )

    def _faster(self) -> str:
        optim = self.watched.config.optim
        if optim.optimizer == "prodigy" and optim.learning_rate < 0.1:
            return (
                f"prodigy is meant with --learning_rate 1, got {optim.learning_rate:g}; start again with --overwrite."
            )
        return "Raise --learning_rate or --text_encoder_lr, or take --optimizer adamw."

    def _trained(self) -> set[str]:
        """The components that are still trained: a text encoder may be stopped on the way."""
        adapter = self.progress.adapter
        layers = {plan.component for plan in adapter.plans if adapter.layers[plan.name].slot.B.requires_grad}
        embeddings = adapter.word.embeddings if adapter.word is not None else {}
        return layers | {component for component, embedding in embeddings.items() if embedding.rows.requires_grad}

    def _had_time(self, name: str) -> bool:
        """Whether enough steps moved its component for this tensor to have shown life."""
        return self.progress.record.moving.get(_component(name), 0) >= (2 if name.endswith(".A") else 1)

    def _stacks(self) -> Iterator[tuple[tuple[str, ...], Tensor, Tensor]]:
        """(names, values, gradients) of every group's tensors of one role, stacked along the first axis."""
        adapter = self.progress.adapter
        component = {plan.name: plan.component for plan in adapter.plans}
        roles = ("A", "B", "magnitude") if adapter.variant.has_magnitude else ("A", "B")
        for group in adapter.groups:
            for role in roles:
                names = tuple(f"{component[slot.name]}:{slot.name}.{role}" for slot in group.slots)
                yield names, getattr(group, role), getattr(group, f"{role}_grad")
        for buffer in adapter.buffers:
            if buffer.role == TOKENS:
                for number, (row, gradient) in enumerate(
                    zip(buffer.data_views()[0], buffer.grad_views()[0], strict=True)
                ):
                    yield (f"{buffer.component}:{buffer.name}.{number}",), row[None], gradient[None]

    def _rates_by_component(self) -> dict[str, float]:
        """The rate at which each component's ``B`` moves, or its new tokens where that is all it has.

        Every tensor of a component waits for that one.
        """
        groups = self.progress.optimizer.param_groups
        rates = {parameter: float(group["lr"]) for group in groups for parameter in group["params"]}
        # New tokens come after all layers' buffers, so that a B of their component overrides them.
        leading = [b for b in reversed(self.progress.adapter.buffers) if b.role in ("B", TOKENS)]
        return {b.component: rates.get(b.parameter, 0.0) for b in leading}


def _component(name: str) -> str:
    return name.partition(":")[0]


def _some(names: list[str]) -> str:
    """The first few names, and how many there are."""
    shown = ", ".join(name.partition(":")[2] for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more tensors"
