"""``dora-diffusion inspect FILE [--json]``."""

import json
from pathlib import Path
from typing import Any

from dora_diffusion.cli.parse import parse
from dora_diffusion.config import InspectConfig
from dora_diffusion.errors import ConfigError


def run(arguments: list[str]) -> int:
    """Read an adapter and print what it holds."""
    places = [k for k, argument in enumerate(arguments) if not argument.startswith("-")]
    path = arguments[places[0]] if places else None
    flags = [argument for k, argument in enumerate(arguments) if k not in places[:1]]
    config = parse(InspectConfig, flags, "inspect", takes="FILE")
    if path is None:
        raise ConfigError("Which file? dora-diffusion inspect FILE (a run folder or a .safetensors file).")
    report = describe(Path(path))
    print(json.dumps(report, indent=2) if config.as_json else table(report))
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
        "metadata": state.metadata,
        "layers": layers,
    }


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    rows = [
        f"{key:>17}: {_short(report[key])}" for key in report if key != "layers" and report[key] not in (None, [], {})
    ]
    width = max(len(name) for name in report["layers"])
    rows.append(f"\n{'layer':<{width}}  rank  |update|  mean magnitude")
    for name, layer in report["layers"].items():
        magnitude = "-" if layer["mean_magnitude"] is None else f"{layer['mean_magnitude']:.4f}"
        rows.append(f"{name:<{width}}  {layer['rank']:>4}  {layer['update_norm']:>8.4f}  {magnitude:>14}")
    return "\n".join(rows)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
