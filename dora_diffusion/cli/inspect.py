"""``dora-diffusion inspect FILE [--layers] [--json]``."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import InspectConfig
from dora_diffusion.errors import ConfigError, some_of


def run(arguments: list[str]) -> int:
    """Read an adapter and print what it holds."""
    places = [k for k, argument in enumerate(arguments) if not argument.startswith("-")]
    path = arguments[places[0]] if places else None
    flags = [argument for k, argument in enumerate(arguments) if k not in places[:1]]
    config = parse(InspectConfig, flags, "inspect", takes="FILE")
    if path is None:
        raise ConfigError("Which file? dora-diffusion inspect FILE (a run folder or a .safetensors file).")
    report = describe(Path(path))
    if config.as_json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join([*summary(report), *(layer_table(report) if config.layers else ())]))
    return 0


def describe(path: Path) -> dict[str, Any]:
    """What the adapter at ``path`` is, and for every layer its rank and the size of its update ``||scale B A||``."""
    from dora_diffusion.formats import adapter_file, load_adapter

    state = load_adapter(path)
    layers = {
        name: {
            "weight_shape": list(layer.weight_shape),
            "rank": layer.rank,
            "update_norm": round(float((layer.scale * layer.B @ layer.A).norm()), 6),
            "mean_magnitude": None if layer.magnitude is None else round(float(layer.magnitude.mean()), 6),
        }
        for name, layer in state.layers.items()
    }
    ranks = sorted({layer.rank for layer in state.layers.values()})
    return {
        "file": str(adapter_file(path)),
        "kind": state.kind,
        "axis": "one norm per output row" if state.kind == "dora" else None,
        "base": state.base_name or None,
        "ranks": ranks,
        "components": {
            c: sum(name.startswith(f"{c}.") for name in layers)
            for c in dict.fromkeys(n.partition(".")[0] for n in layers)
        },
        "parameters": sum(
            t.numel() for layer in state.layers.values() for t in (layer.A, layer.B, layer.magnitude) if t is not None
        ),
        "untrained_layers": [name for name, layer in layers.items() if layer["update_norm"] == 0],
        "metadata": dict(sorted(state.metadata.items())),  # the reader has no order of its own
        "layers": layers,
    }


def summary(report: dict[str, Any]) -> Iterator[str]:
    """What holds of the whole adapter."""
    told = {key: value for key, value in report.items() if key != "layers" and value not in (None, [], {})}
    yield from (f"{key:>17}: {_short(value)}" for key, value in (told | _of_updates(report["layers"])).items())


def _of_updates(layers: dict[str, dict[str, Any]]) -> dict[str, str]:
    """How large the updates are, where there are layers to speak of."""
    if not layers:
        return {}
    norms = {name: layer["update_norm"] for name, layer in layers.items()}
    largest = max(norms, key=norms.__getitem__)
    spread = f"{min(norms.values()):.4f} to {norms[largest]:.4f}, median {median(norms.values()):.4f}"
    return {"|update|": f"{spread}; the largest in {largest} (every layer: --layers, or --json)"}


def layer_table(report: dict[str, Any]) -> Iterator[str]:
    """A row for every layer, below a blank line."""
    width = max((len(name) for name in report["layers"]), default=0)
    yield ""
    yield f"{'layer':<{width}}  rank  |update|  mean magnitude"
    for name, layer in report["layers"].items():
        magnitude = "-" if layer["mean_magnitude"] is None else f"{layer['mean_magnitude']:.4f}"
        yield f"{name:<{width}}  {layer['rank']:>4}  {layer['update_norm']:>8.4f}  {magnitude:>14}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return some_of([str(item) for item in value])
    return str(value)
