"""``dora-diffusion inspect FILE [--layers] [--json]``."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from dora_diffusion.cli.parse import parse, take_file
from dora_diffusion.config import InspectConfig
from dora_diffusion.errors import ConfigError, some_of

_SHOWN = 6  # of a long list
_ELSEWHERE = ("metadata", "layers", "readers", "readers_judged_on", "relative_change", "layers_of_another_base")


def run(arguments: list[str]) -> int:
    """Read an adapter and print what it holds."""
    path, flags = take_file(InspectConfig, arguments)
    config = parse(InspectConfig, flags, "inspect", takes="FILE")
    if path is None:
        raise ConfigError("Which file? dora-diffusion inspect FILE (a run folder or a .safetensors file).")
    report = describe(Path(path), config.pretrained_model_name_or_path)
    if config.as_json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join([*summary(report), *(layer_table(report) if config.layers else ())]))
    return 0


def describe(path: Path, base_name: str | None = None) -> dict[str, Any]:
    """What the adapter at ``path`` is; see ``formats.facts``."""
    from dora_diffusion.formats.facts import facts

    return facts(path, base_name)


def summary(report: dict[str, Any]) -> Iterator[str]:
    """What holds of the whole adapter, and who reads the file right."""
    told = {key: value for key, value in report.items() if key not in _ELSEWHERE and value not in (None, [], {})}
    told["metadata"] = {key: value for key, value in report["metadata"].items() if key != "settings"}  # a page of JSON
    yield from (f"{key:>17}: {_short(value)}" for key, value in (told | _of_updates(report)).items() if value)
    yield from (f"{f'in {reader}':>17}: {verdict}" for reader, verdict in report["readers"].items())
    if report["compared_with"] != report["readers_judged_on"]:
        yield f"{'':>17}  judged on {report['readers_judged_on']}: give it with --pretrained_model_name_or_path"


def _of_updates(report: dict[str, Any]) -> dict[str, str]:
    """How large the updates are, where there are layers to speak of."""
    layers = report["layers"]
    if not layers:
        return {}
    told = {"|update|": _spread({name: layer["update_norm"] for name, layer in layers.items()})}
    shares = {name: layer["relative_change"] for name, layer in layers.items() if layer["relative_change"] is not None}
    if shares:
        told["|change|/|W|"] = f"{report['relative_change']:.4g} over all; {_spread(shares)}"
    used = [layer["effective_rank"] for layer in layers.values()]
    told["effective rank"] = f"{min(used):.1f} to {max(used):.1f}, median {median(used):.1f}"
    if differing := report["layers_of_another_base"]:
        told["warning"] = f"{report['compared_with']} is another base in {len(differing)} layers, first {differing[0]}"
    return told


def _spread(sizes: dict[str, float]) -> str:
    largest = max(sizes, key=sizes.__getitem__)
    return f"{min(sizes.values()):.4f} to {sizes[largest]:.4f}, median {median(sizes.values()):.4f}; most in {largest}"


def layer_table(report: dict[str, Any]) -> Iterator[str]:
    """A row for every layer, below a blank line."""
    width = max((len(name) for name in report["layers"]), default=0)
    yield ""
    yield f"{'layer':<{width}}  rank   alpha  used  |update|  |change|/|W|  mean magnitude"
    for name, layer in report["layers"].items():
        share = "-" if layer["relative_change"] is None else f"{layer['relative_change']:.5f}"
        magnitude = "-" if layer["mean_magnitude"] is None else f"{layer['mean_magnitude']:.4f}"
        yield (
            f"{name:<{width}}  {layer['rank']:>4}  {layer['alpha']:>6g}  {layer['effective_rank']:>4.1f}  "
            f"{layer['update_norm']:>8.4f}  {share:>12}  {magnitude:>14}{'  untrained' if layer['dead'] else ''}"
        )


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return some_of([str(item) for item in value])
    return str(value)
