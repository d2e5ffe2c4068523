"""What a run has found out about itself, and what a resumed part of it must know."""

from dataclasses import dataclass, field


@dataclass
class Record:
    """Small facts that are kept in every checkpoint: numbers and names, nothing that JSON cannot hold.

    ``skipped``: steps left out because they were not finite; ``skipped_in_a_row``: of those, the last ones together.
    ``watched``: steps that ``sentinels.life`` looked at; ``moving``: of those, by component, the ones applied at a
    learning rate above 0. ``without_gradient``, ``unmoved``: the trained tensors for which that was still true.
    ``recompute``, ``split``: what ``recovery`` changed to fit into memory. ``attention``: the backend.
    """

    skipped: int = 0
    skipped_in_a_row: int = 0
    watched: int = 0
    moving: dict[str, int] = field(default_factory=dict)
    without_gradient: list[str] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)
    recompute: bool = False
    split: int = 1
    attention: str = ""
