"""Which base checkpoint an adapter belongs to.

DoRA's magnitudes are absolute: on another base they are wrong, silently. The row norms of a few rows of every adapted
layer tell bases apart, and agree between the fp32, fp16 and bf16 files of one model.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dora_diffusion.adapters.state import Fingerprint

ROWS = 4
TOLERANCE = 1e-3


def fingerprint(weights: Mapping[str, Tensor]) -> Fingerprint:
    """Row norms of up to four evenly spaced rows of every weight (out, ...), by layer name."""
    return {name: _row_norms(weight) for name, weight in weights.items()}


def _row_norms(weight: Tensor) -> list[float]:
    rows = torch.linspace(0, weight.shape[0] - 1, min(ROWS, weight.shape[0])).long()
    norms = torch.linalg.vector_norm(weight.detach()[rows.to(weight.device)].flatten(1).float(), dim=1)
    return [float(f"{norm:.6g}") for norm in norms.tolist()]


def differing_layers(expected: Fingerprint, weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the layers whose base is not the one in ``expected``; layers that one side lacks are left out."""
    shared = [name for name in weights if name in expected]
    return [name for name in shared if not _close(_row_norms(weights[name]), expected[name])]


def _close(found: list[float], expected: list[float]) -> bool:
    if len(found) != len(expected):
        return False
    return all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) + 1e-12 for a, b in zip(found, expected, strict=True))
