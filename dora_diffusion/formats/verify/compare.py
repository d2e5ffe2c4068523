"""A file, as a reader reads it, against the weights it should give: layer by layer, in numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dora_diffusion.adapters import AdapterState, merged_weights
from dora_diffusion.formats.verify.arithmetic import row_norms, update
from dora_diffusion.formats.verify.reading import AdapterFile, BaseWeights, Found, MisfitError, Reader, Reading

OF_WEIGHT = 1e-6  # of ||W'||
OF_CHANGE = 1e-4  # of ||W' - W0||
# Four roundings of float32: where a change is so small that a ten-thousandth of it is below them, they are the bound.
FLOOR = 2.0**-22
_ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}  # of one number to the nearest


@dataclass(frozen=True)
class LayerCheck:
    """One layer.

    Args:
        name: canonical.
        taken: the reader takes something from the file for it.
        expected: the adapter has it.
        error: ``||W_reader - W'|| / ||W'||``.
        of_change: ``||W_reader - W'|| / ||W' - W0||``; None where nothing changes.
        rounding: the most that the file's half-precision numbers may explain, of ``||W' - W0||``; 0 for float32.
        within: whether both bounds hold.
        fault: over what the reader stumbles; empty if it does not.
    """

    name: str
    taken: bool
    expected: bool
    error: float
    of_change: float | None
    rounding: float
    within: bool
    fault: str = ""


@dataclass(frozen=True)
class Verification:
    """A whole file in one reader's hands.

    Args:
        reader, rules: its name, and which version's rules it is judged by.
        layers: those the adapter has, and those the reader would change besides.
        left_over: keys that change nothing.
        refusal: why it loads nothing; empty if it does.
        remarks: what it loses, in words.
        dtypes: how many of the file's tensors have which.
    """

    reader: str
    rules: str
    layers: tuple[LayerCheck, ...]
    left_over: tuple[str, ...]
    refusal: str
    remarks: tuple[str, ...]
    dtypes: Mapping[str, int]

    @property
    def is_right(self) -> bool:
        """Whether every layer is within the bounds, none is missing, and none is changed that should not be."""
        return not self.refusal and bool(self.layers) and all(layer.within for layer in self.layers)

    @property
    def expected(self) -> int:
        """How many layers the adapter has."""
        return sum(layer.expected for layer in self.layers)

    @property
    def covered(self) -> int:
        """How many of them the reader takes something for."""
        return sum(layer.expected and layer.taken and not layer.fault for layer in self.layers)

    @property
    def wrong(self) -> tuple[LayerCheck, ...]:
        """Layers out of bounds, the worst first."""
        return tuple(sorted((x for x in self.layers if not x.within), key=lambda x: x.error, reverse=True))

    @property
    def worst_error(self) -> float:
        return max((layer.error for layer in self.layers), default=0.0)

    @property
    def worst_of_change(self) -> float:
        return max((layer.of_change or 0.0 for layer in self.layers), default=0.0)

    @property
    def worst_rounding(self) -> float:
        return max((layer.rounding for layer in self.layers), default=0.0)


class Merged(Mapping[str, Tensor]):
    """The weights an adapter should give, each made when it is asked for: a whole SDXL does not fit beside itself."""

    def __init__(self, state: AdapterState, weights: Mapping[str, Tensor]):
        self._state = state
        self._weights = weights

    def __getitem__(self, name: str) -> Tensor:
        one = replace(self._state, layers={name: self._state.layers[name]})
        return next(merged_weights(one, {name: self._weights[name]}))[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state.layers)

    def __len__(self) -> int:
        return len(self._state.layers)


def verify(file: AdapterFile, reader: Reader, base: BaseWeights, expected: Mapping[str, Tensor]) -> Verification:
    """Read ``file`` as ``reader`` does and compare every layer's weight at strength 1, in float32.

    Args:
        base: the base's weights, all layers of it.
        expected: W' of every layer that the adapter changes, by canonical name.
    """
    reading = reader.find(file, base)
    names = [*expected, *(name for name in reading.layers if name not in expected)]
    layers = tuple(_check(name, reading, reader, base.weights[name].float(), expected.get(name)) for name in names)
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values())
    return Verification(
        reader.name, reader.rules, layers, reading.left_over, reading.refusal, reading.remarks, dict(dtypes)
    )


@torch.no_grad()
def _check(name: str, reading: Reading, reader: Reader, weight: Tensor, wanted: Tensor | None) -> LayerCheck:
    target = weight if wanted is None else wanted
    found = reading.layers.get(name)
    result, fault, rounding = weight, "", 0.0
    if found is not None:
        try:
            result = reader.merge(found, weight)
            rounding = rounding_of(found, weight, result)
        except MisfitError as stumble:
            fault = str(stumble)
    error = _norm(result - target)
    change, size = _norm(target - weight), _norm(target)
    most = max(OF_CHANGE * change, FLOOR * size)
    return LayerCheck(
        name=name,
        taken=found is not None,
        expected=wanted is not None,
        error=error / size if size else error,
        of_change=error / change if change else None,
        rounding=rounding / change if change else 0.0,
        within=not fault and error <= min(most, OF_WEIGHT * size) + rounding,
        fault=fault,
    )


def rounding_of(found: Found, weight: Tensor, result: Tensor) -> float:
    """The most by which rounding the file's numbers can have moved ``result`` (Frobenius norm, first order).

    A number is off by at most ``u`` of itself, so ``B A`` by ``(2u + u^2) |B| |A|``; a row is then stretched by its
    gain, and a rounded magnitude moves the whole row.
    """
    magnitude = 0.0 if found.magnitude is None else _unit(found.magnitude) * _norm(result)
    if found.diff is not None:
        return _unit(found.diff) * _norm(found.diff.float())
    if found.up is None or found.down is None or not (_unit(found.up) or _unit(found.down)):
        return magnitude
    up, down = _unit(found.up), _unit(found.down)
    sizes = replace(found, up=found.up.float().abs(), down=found.down.float().abs())
    moved = row_norms(update(sizes, weight)).flatten() * (up + down + up * down)
    gain = row_norms(result).flatten() / row_norms(weight + update(found, weight)).flatten().clamp_min(1e-12)
    return _norm(moved * gain) + magnitude


def _unit(tensor: Tensor) -> float:
    return _ROUNDING.get(tensor.dtype, 0.0)


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))


def as_json(found: Verification) -> dict[str, Any]:
    """For machines; the worst layers first."""
    layers = sorted(found.layers, key=lambda layer: layer.error, reverse=True)
    return {
        "reader": found.reader,
        "rules": found.rules,
        "right": found.is_right,
        "refusal": found.refusal,
        "layers_expected": found.expected,
        "layers_covered": found.covered,
        "worst_error": found.worst_error,
        "worst_error_of_change": found.worst_of_change,
        "worst_rounding_of_change": found.worst_rounding,
        "dtypes": dict(found.dtypes),
        "left_over": list(found.left_over),
        "remarks": list(found.remarks),
        "layers": [
            {
                "name": layer.name,
                "taken": layer.taken,
                "expected": layer.expected,
                "error": layer.error,
                "error_of_change": layer.of_change,
                "rounding_of_change": layer.rounding,
                "within": layer.within,
                "fault": layer.fault,
            }
            for layer in layers
        ],
    }
