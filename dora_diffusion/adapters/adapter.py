"""An adapter living in a model: its parameters, its strength, and when its ready tensors are out of date."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dora_diffusion.adapters.fingerprint import fingerprint
from dora_diffusion.adapters.flat import FlatBuffer
from dora_diffusion.adapters.group import Group, Slot
from dora_diffusion.adapters.layer import AdapterLayer
from dora_diffusion.adapters.plan import LayerPlan, LearntWord, TokenRows
from dora_diffusion.adapters.state import AdapterState, LayerState, NewWord
from dora_diffusion.adapters.variant import Variant
from dora_diffusion.errors import AdapterError

logger = logging.getLogger(__name__)

TOKENS = "tokens"  # the role of a buffer that holds a word's vectors


class Adapter:
    """Adapter layers over the frozen layers of one or more models ("components").

    The frozen models must not require gradients; ``Adapter`` switches theirs off.

    Args:
        plans: which layers, with their ranks and alphas.
        variant: the kind.
        seed: of the initial ``A``, drawn per layer from its name.
        norm_grad_full: let the gradient flow through DoRA's norm.
        word: its vectors are trained too, each text encoder's in one more flat buffer.
    """

    def __init__(
        self,
        plans: Iterable[LayerPlan],
        variant: Variant,
        seed: int = 0,
        norm_grad_full: bool = False,
        word: LearntWord | None = None,
    ):
        self.plans = list(plans)
        self.variant = variant
        self.word = word
        self.layers: dict[str, AdapterLayer] = {}
        self.groups: list[Group] = []
        self.buffers: list[FlatBuffer] = []
        self._strength = 1.0
        self._prepared_for: tuple[Any, ...] | None = None
        for component in dict.fromkeys(plan.component for plan in self.plans):
            self._build(component, norm_grad_full)
        self._adopt_word()
        self._attach_views()
        self._draw(seed)
        for group in self.groups:
            group.adopt_base()
        self._install()

    def _build(self, component: str, norm_grad_full: bool) -> None:
        """Group one component's layers by shape and make its flat buffers in the groups' order."""
        members: dict[tuple[Any, ...], list[tuple[LayerPlan, Slot]]] = {}
        for plan in self.plans:
            if plan.component == component:
                slot = Slot(plan.name, plan.module, plan.op, plan.scale)
                weight = slot.weight
                has_bias = plan.module.bias is not None
                key = (tuple(weight.shape), plan.rank, plan.scale, weight.dtype, has_bias)
                members.setdefault(key, []).append((plan, slot))
        groups = [
            Group([slot for _, slot in pairs], pairs[0][0].rank, pairs[0][0].scale, self.variant, norm_grad_full)
            for pairs in members.values()
        ]
        shapes: dict[str, list[tuple[int, ...]]] = {
            "A": [(len(g.slots), g.rank, g.columns) for g in groups],
            "B": [(len(g.slots), g.rows, g.rank) for g in groups],
        }
        if self.variant.has_magnitude:
            shapes["magnitude"] = [(len(g.slots), g.rows) for g in groups]
        device = groups[0].slots[0].weight.device
        self.buffers += [FlatBuffer(component, role, shapes[role], device) for role in shapes]
        self.groups += groups

    def _adopt_word(self) -> None:
        """A flat buffer for the word's vectors of each text encoder."""
        for component, embedding in self._embeddings().items():
            rows = embedding.rows.detach()
            buffer = FlatBuffer(component, TOKENS, [tuple(rows.shape)], embedding.weight.device)
            buffer.data_views()[0].copy_(rows)
            self.buffers.append(buffer)

    def _embeddings(self) -> Mapping[str, TokenRows]:
        return {} if self.word is None else self.word.embeddings

    def _attach_views(self) -> None:
        """Point groups, slots and the word at their shares of the flat buffers (again, after a move)."""
        for role in ("A", "B", "magnitude"):
            buffers = [buffer for buffer in self.buffers if buffer.role == role]
            values = [view for buffer in buffers for view in buffer.data_views()]
            gradients = [view for buffer in buffers for view in buffer.grad_views()]
            for group, value, gradient in zip(self.groups, values, gradients, strict=False):
                setattr(group, role, value)
                setattr(group, f"{role}_grad", gradient)
                for k, slot in enumerate(group.slots):
                    leaf = nn.Parameter(value[k])
                    leaf.grad = gradient[k]
                    setattr(slot, role, leaf)
        for buffer in self.buffers:
            if buffer.role == TOKENS:
                leaf = nn.Parameter(buffer.data_views()[0])
                leaf.grad = buffer.grad_views()[0]
                self._embeddings()[buffer.component].rows = leaf

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        """``A ~ U(-1/sqrt(in), 1/sqrt(in))`` (Kaiming with a = sqrt 5, as in LoRA's and DoRA's code), ``B = 0``."""
        for group in self.groups:
            bound = group.columns**-0.5
            for k, slot in enumerate(group.slots):
                generator = torch.Generator().manual_seed(_seed_of(slot.name, seed))
                group.A[k].copy_(torch.empty(group.rank, group.columns).uniform_(-bound, bound, generator=generator))

    def _install(self) -> None:
        slots = {slot.name: slot for group in self.groups for slot in group.slots}
        for plan in self.plans:
            plan.root.requires_grad_(False)
            layer = AdapterLayer(plan.module, slots[plan.name], self)
            plan.replace(layer)
            self.layers[plan.name] = layer

    def eject(self) -> None:
        """Take the adapter out: the models have the base's weights again. A word stays until the base forgets it."""
        if self.is_merged:
            self.unmerge()
        for plan in self.plans:
            plan.replace(plan.module)

    # ---------------------------------------------------------------------------------------------- ready tensors
    @property
    def strength(self) -> float:
        """0 is the base, 1 the adapter; linear in the weights. Training needs 1."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = float(value)

    @property
    def is_off(self) -> bool:
        """Whether layers are the frozen ones; never while gradients are recorded, where strength 0 is refused."""
        return self._strength == 0 and not torch.is_grad_enabled()

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Within the block the models are the base, bit for bit, and nothing is recorded for gradients.

        Ready tensors are neither read nor written, so that a backward pass through earlier forwards still finds them.
        """
        before = self._strength
        self._strength = 0.0
        try:
            with torch.no_grad():
                yield
        finally:
            self._strength = before

    def _what_is_ready(self) -> tuple[Any, ...]:
        """Changes whenever the ready tensors would."""
        return self._strength, *(buffer.parameter._version for buffer in self.buffers)

    def ensure_prepared(self, slot: Slot) -> None:
        """Prepare if a parameter changed, or this layer's frozen weight did. Cheap: called by every layer's forward."""
        if self._prepared_for != self._what_is_ready() or slot.prepared_for != slot.weight_signature():
            self.prepare()
        if self._strength != 1.0 and torch.is_grad_enabled():
            raise AdapterError(f"Training needs strength 1, got {self._strength:g}; set adapter.strength = 1.0 first.")

    @torch.no_grad()
    def prepare(self) -> None:
        """Bring every group's ready tensors up to date. Once an optimizer step is enough, for any number of forwards.

        Raises:
            AdapterError: the adapter is merged.
        """
        if self.is_merged:
            raise AdapterError("The adapter is merged into its model; unmerge it before using it live.")
        self._follow_models()
        if any([group.adopt_base() for group in self.groups if not group.is_current()]):
            logger.warning("The base's weights changed: trained magnitudes keep their ratio to the base's row norms.")
        for group in self.groups:
            self.variant.prepare(group, self._strength)
            for slot in group.slots:
                slot.prepared_for = slot.weight_signature()
        self._prepared_for = self._what_is_ready()

    def _follow_models(self) -> None:
        """Move buffers to where their component went."""
        devices = {plan.component: plan.module.weight.device for plan in self.plans}
        devices |= {component: embedding.weight.device for component, embedding in self._embeddings().items()}
        moved = [buffer for buffer in self.buffers if buffer.parameter.device != devices[buffer.component]]
        for buffer in moved:
            buffer.move(devices[buffer.component])  # type: ignore[arg-type]
        if moved:
            self._attach_views()

    # ---------------------------------------------------------------------------------------------- training
    def zero_grad(self) -> None:
        """Zero the gradients in place: the buffers are permanent."""
        for buffer in self.buffers:
            if buffer.parameter.grad is not None:
                buffer.parameter.grad.zero_()

    def finish_gradients(self) -> None:
        """Complete the gradients once all backward passes of a step are through (``norm_grad: full`` needs it)."""
        with torch.no_grad():
            for group in self.groups:
                self.variant.finish_gradients(group)

    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(buffer.parameter.numel() for buffer in self.buffers)

    # ---------------------------------------------------------------------------------------------- merging
    @property
    def is_merged(self) -> bool:
        return any(layer.is_merged for layer in self.layers.values())

    def merge(self, strength: float = 1.0) -> None:
        """Write the merged weights into the frozen layers; the copies that are kept make ``unmerge`` exact.

        Raises:
            AdapterError: it is merged already.
        """
        if self.is_merged:
            raise AdapterError("The adapter is merged already; merging twice would apply it twice. Unmerge it first.")
        self.prepare()
        for layer in self.layers.values():
            layer.merge(strength)

    def unmerge(self) -> None:
        """Restore the base's weights, bit for bit.

        Raises:
            AdapterError: it is not merged.
        """
        for layer in self.layers.values():
            layer.unmerge()

    # ---------------------------------------------------------------------------------------------- state
    def state(self, base_name: str = "", metadata: Mapping[str, str] | None = None) -> AdapterState:
        """A copy of everything trained, float32 on the CPU."""
        self.prepare()
        layers = {name: _layer_state(layer, self.variant) for name, layer in self.layers.items()}
        weights = {name: layer.weight for name, layer in self.layers.items()}
        rows = {component: _copy(embedding.rows) for component, embedding in self._embeddings().items()}
        word = None if self.word is None else NewWord(self.word.trigger, rows)
        return AdapterState(self.variant.name, layers, base_name, fingerprint(weights), dict(metadata or {}), word)

    @torch.no_grad()
    def load_state(self, state: AdapterState) -> None:
        """Copy a state's values in.

        Raises:
            AdapterError: another kind, other layers or other shapes.
        """
        if state.kind != self.variant.name:
            raise AdapterError(f"The adapter in the model is a {self.variant.name}, the one to load a {state.kind}.")
        if state.layers.keys() != self.layers.keys():
            odd = sorted(state.layers.keys() ^ self.layers.keys())
            raise AdapterError(
                f"The adapter to load has other layers than the model's; {len(odd)} differ, first {odd[0]}."
            )
        for name, layer in state.layers.items():
            slot = self.layers[name].slot
            if slot.A.shape != layer.A.shape or slot.B.shape != layer.B.shape or slot.scale != layer.scale:
                raise AdapterError(
                    f"{name}: rank or alpha differ: the model has rank {slot.A.shape[0]}, the file {layer.rank}."
                )
            slot.A.copy_(layer.A)
            slot.B.copy_(layer.B)
            if layer.magnitude is not None:
                slot.magnitude.copy_(layer.magnitude)
        self._load_word(state.word)
        self._prepared_for = None

    def _load_word(self, word: NewWord | None) -> None:
        ours = {component: tuple(embedding.rows.shape) for component, embedding in self._embeddings().items()}
        theirs = {} if word is None else {component: tuple(rows.shape) for component, rows in word.rows.items()}
        if ours != theirs:
            raise AdapterError(f"The word in the model has vectors {ours or 'nowhere'}, the one to load {theirs}.")
        for component, rows in (word.rows if word is not None else {}).items():
            self._embeddings()[component].rows.copy_(rows)


def _layer_state(layer: AdapterLayer, variant: Variant) -> LayerState:
    slot = layer.slot
    magnitude = _copy(slot.magnitude) if variant.has_magnitude else None
    return LayerState(_copy(slot.A), _copy(slot.B), slot.scale, magnitude, tuple(layer.weight.shape))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().clone()


def _seed_of(name: str, seed: int) -> int:
    from hashlib import blake2b

    return int.from_bytes(blake2b(f"{seed}:{name}".encode(), digest_size=7).digest(), "little")
