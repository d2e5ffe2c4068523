"""A file, as a reader reads it, against the weights it should give: layer by layer, in numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
        return 0 if self.refusal else sum(layer.expected and layer.taken and not layer.fault for layer in self.layers)

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
    (found,) = verify_all(file, [reader], base, expected)
    return found


def verify_all(
    file: AdapterFile, readers: Sequence[Reader], base: BaseWeights, expected: Mapping[str, Tensor]
) -> list[Verification]:
    """``verify`` for several readers, with each weight made once."""
    readings = [reader.find(file, base) for reader in readers]
    changed = dict.fromkeys([*expected, *(name for reading in readings for name in reading.layers)])
    checks: list[list[LayerCheck]] = [[] for _ in readers]
    for name in changed:
        weight = base.weights[name].float()
        wanted = expected.get(name)
        change = _Change(name, weight, wanted)
        for reader, reading, done in zip(readers, readings, checks, strict=True):
            if wanted is not None or name in reading.layers:
                done.append(_check(change, reading, reader))
    return [_verdict(file, *parts) for parts in zip(readers, readings, checks, strict=True)]


class _Change:
    """One layer: what it is, what it should be, and the norms of that."""

    def __init__(self, name: str, weight: Tensor, wanted: Tensor | None):
        self.name, self.weight, self.expected = name, weight, wanted is not None
        self.target = weight if wanted is None else wanted
        self.size = _norm(self.target)
        self.change = 0.0 if wanted is None else _norm(wanted - weight)


@torch.no_grad()
def _check(change: _Change, reading: Reading, reader: Reader) -> LayerCheck:
    found = reading.layers.get(change.name)
    error, fault, rounding = change.change, "", 0.0
    if found is not None:
        try:
            result = reader.merge(found, change.weight)
            rounding = rounding_of(found, change.weight, result)
            error = _norm(result - change.target)
        except MisfitError as stumble:
            fault = str(stumble)
    most = max(OF_CHANGE * change.change, FLOOR * change.size)
    return LayerCheck(
        name=change.name,
        taken=found is not None,
        expected=change.expected,
        error=error / change.size if change.size else error,
        of_change=error / change.change if change.change else None,
        rounding=rounding / change.change if change.change else 0.0,
        within=not fault and error <= min(most, OF_WEIGHT * change.size) + rounding,
        fault=fault,
    )


def _verdict(file: AdapterFile, reader: Reader, reading: Reading, checks: list[LayerCheck]) -> Verification:
    refusal = reading.refusal
    fault = next((layer for layer in checks if layer.fault), None)
    if fault and reader.stops:
        refusal = f"{fault.name} has {fault.fault}, at which it stops"
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values())
    return Verification(
        reader.name, reader.rules, tuple(checks), reading.left_over, refusal, reading.remarks, dict(dtypes)
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
