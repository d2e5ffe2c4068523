"""What every reader's arithmetic is made of. float32, as they compute."""

import torch
from torch import Tensor

from dora_diffusion.formats.verify.reading import Found, MisfitError

EPS = torch.finfo(torch.float32).eps


def update(found: Found, weight: Tensor) -> Tensor:
    """``scale * up @ down`` in the shape of ``weight``.

    Raises:
        MisfitError: the factors do not multiply to that many numbers.
    """
    if found.up is None or found.down is None:
        raise MisfitError("a factor is missing")
    # The scale goes into the small factor: the product may be large.
    up, down = found.up.float().flatten(1) * found.scale, found.down.float().flatten(1)
    if up.shape[1] != down.shape[0] or up.shape[0] * down.shape[1] != weight.numel():
        raise MisfitError(
            f"factors {list(found.up.shape)} and {list(found.down.shape)} for a weight {list(weight.shape)}"
        )
    return (up @ down).reshape(weight.shape)


def difference(found: Found, weight: Tensor) -> Tensor:
    """The difference that the file holds, in float32.

    Raises:
        MisfitError: it has another shape than ``weight``.
    """
    if found.diff is None or found.diff.shape != weight.shape:
        raise MisfitError(f"a difference {_shape(found.diff)} for a weight {list(weight.shape)}")
    return found.diff.float()


def row_norms(weight: Tensor) -> Tensor:
    """One norm for every output row, (out, 1, ...)."""
    return weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))


def column_norms(weight: Tensor) -> Tensor:
    """One norm for every input channel, (1, in, ...)."""
    return row_norms(weight.transpose(0, 1)).transpose(0, 1)


def stretched(direction: Tensor, magnitude: Tensor, norms: Tensor) -> Tensor:
    """``direction * magnitude / norms``, broadcast as tensors of these shapes are.

    Raises:
        MisfitError: they do not broadcast to the shape of ``direction``.
    """
    try:
        result = direction * (magnitude.float() / norms)
    except RuntimeError:
        raise MisfitError(f"a scale {_shape(magnitude)} for a weight {list(direction.shape)}") from None
    if result.shape != direction.shape:
        raise MisfitError(f"a scale {_shape(magnitude)} for a weight {list(direction.shape)}")
    return result


def _shape(tensor: Tensor | None) -> list[int]:
    return [] if tensor is None else list(tensor.shape)
