"""An adapter as plain data: what every file format reads and writes."""

from dataclasses import dataclass, field

from torch import Tensor

Fingerprint = dict[str, list[float]]


@dataclass(frozen=True)
class LayerState:
    """One layer: ``A (rank, in_flat)``, ``B (out, rank)``, ``magnitude (out,)`` or None, float32 on the CPU.

    ``weight_shape`` is the frozen weight's; ``scale`` is alpha / rank, not folded into anything.
    """

    A: Tensor
    B: Tensor
    scale: float
    magnitude: Tensor | None
    weight_shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return self.A.shape[0]


@dataclass(frozen=True)
class NewWord:
    """A trigger with tokens of its own. ``rows``: their vectors (n, dim), float32 on the CPU, by text encoder."""

    trigger: str
    rows: dict[str, Tensor]

    @property
    def count(self) -> int:
        """How many tokens it has: as many in every text encoder."""
        return len(next(iter(self.rows.values())))


@dataclass(frozen=True)
class AdapterState:
    """A whole adapter.

    Args:
        kind: a name in ``registry.ADAPTERS``.
        layers: by canonical name: the component ("unet", "text_encoder") and the diffusers path, text encoders always
            with ``text_model.``.
        base_name: what the base was called when the adapter was trained.
        fingerprint: row norms of the base's adapted layers (see ``fingerprint.py``).
        metadata: anything else worth carrying: trigger, prompts, the run's settings.
        word: what the text encoders learnt beside their vocabulary; strength does not scale it.
    """

    kind: str
    layers: dict[str, LayerState]
    base_name: str = ""
    fingerprint: Fingerprint = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    word: NewWord | None = None
