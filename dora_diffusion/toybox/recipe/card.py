"""The model card of the embedded base, filled from what the stages wrote down."""

from collections.abc import Mapping
from typing import Any

import yaml

from dora_diffusion.toybox.words import CLASSES, COLORS, PATTERNS, SCENES, STYLES

_HEADER = {
    "license": "apache-2.0",
    "library_name": "diffusers",
    "pipeline_tag": "text-to-image",
    "tags": ["text-to-image", "stable-diffusion", "diffusers", "synthetic", "dreambooth"],
}

_EYE = """
The folder `eye` holds the network that judges pictures of this world (`dora_diffusion.toybox.eye`), and what it was
found to see.
"""


def card(
    states: Mapping[str, Mapping[str, Any]],
    parameters: Mapping[str, int],
    files: Mapping[str, int],
    figures: Mapping[str, Any],
) -> str:
    """The text of ``README.md``.

    Args:
        states: what lies behind the weights, by stage: "autoencoder", "diffusion" and, if it is known, "eye".
        parameters: how many each part has.
        files: bytes of each file.
        figures: further lines of the table, what to value.
    """
    size = _size(states["diffusion"])
    measured = {stage: state for stage, state in states.items() if stage != "eye"}  # the eye has a card of its own
    return f"""---
{yaml.safe_dump(_HEADER, sort_keys=False).strip()}
---
# Toybox

A small Stable Diffusion that was trained from nothing on rendered toys, so that teaching a model a subject can be
tried, tested and measured on any machine without a download. Pictures of {size} pixels, {_total(files)} MB, fp16.

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("path/to/this/folder")
image = pipe("a photo of a red mug on the beach").images[0]
```

## Data

Every picture was rendered by `dora_diffusion.toybox`: no photograph, no foreign picture, no foreign model was used.
{len(CLASSES)} classes of toys ({", ".join(CLASSES)}) in {len(SCENES)} places ({", ".join(SCENES)}),
{len(COLORS)} colours, {len(PATTERNS)} patterns, {len(STYLES)} styles ({", ".join(STYLES)}).
Captions name what is seen and leave words out at random; proportions, emblems and which part wears which colour are
never said. One combination of class, colours and pattern in eight was kept out of training.

## Parts

| part | parameters | what |
|---|---|---|
{_parts(parameters)}
{_EYE if any(name.startswith("eye/") for name in files) else ""}
Velocities are predicted on Stable Diffusion's noise schedule; every word of the toy world is one token.

## Recipe

`scripts/train_toybox.py`, one stage after the other. Everything random follows from the seeds.

| stage | seed | runs | steps | pictures seen | of these, different | minutes | machine |
|---|---|---|---|---|---|---|---|
{_recipe(states)}

The settings of every run are in `recipe.json`; `--from_dir` with this folder goes on from these weights.

## Figures

Measured on toys that were kept out of training.

| what | value |
|---|---|
{_figures(measured, figures)}

## Limits

It knows the toys, places, colours, patterns and styles listed above and nothing else: any other word is noise to it.
There is no text, no face and no person in its data. Which part of a toy gets the second colour it decides by chance,
because captions never said so. Pictures pass through latents of an eighth of their side, which costs small parts and
emblems detail (the PSNR above). Real photographs can be taught in part, and then look like toys.
"""


def _size(state: Mapping[str, Any]) -> int:
    runs = state["runs"]
    return int(runs[-1]["settings"]["pool"]["size"]) if runs else 128


def _total(files: Mapping[str, int]) -> str:
    return f"{sum(files.values()) / 1e6:.1f}"


def _parts(parameters: Mapping[str, int]) -> str:
    about = {
        "vae": "AutoencoderKL, latents of an eighth of the side",
        "text_encoder": "CLIPTextModel, 32 tokens at most, its own vocabulary",
        "unet": "UNet2DConditionModel, cross-attention at every level",
    }
    return "\n".join(f"| `{kind}` | {parameters[kind] / 1e6:.2f} M | {text} |" for kind, text in about.items())


def _recipe(states: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(_row(stage, state) for stage, state in states.items())


def _row(stage: str, state: Mapping[str, Any]) -> str:
    runs = state["runs"]
    minutes = sum(run["minutes"] for run in runs)
    machines = ", ".join(dict.fromkeys(_machine(run) for run in runs)) or "unknown"
    seeds = ", ".join(dict.fromkeys(str(run["settings"]["seed"]) for run in runs)) or "unknown"
    shard = runs[-1]["settings"]["pool"].get("shard") if runs else None
    different = f"{state['shards'] * shard:,}" if shard else ""  # the eye renews its pictures family by family
    return (
        f"| {stage} | {seeds} | {len(runs)} | {state['steps']:,} | {state['images']:,} | {different} "
        f"| {minutes:.0f} | {machines} |"
    )


def _machine(run: Mapping[str, Any]) -> str:
    count = run.get("processes", 1)
    return f"{count} × {run['device']}" if count > 1 else str(run["device"])


def _figures(states: Mapping[str, Mapping[str, Any]], further: Mapping[str, Any]) -> str:
    lines = {f"{stage}: {name}": value for stage, state in states.items() for name, value in state["figures"].items()}
    return "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in {**lines, **further}.items())
