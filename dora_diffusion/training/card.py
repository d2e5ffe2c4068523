"""The model card: what was taught, how, and how to use it; with the last previews."""

from pathlib import Path

import yaml

from dora_diffusion.config import TrainConfig
from dora_diffusion.formats import WEIGHTS_NAME, write_bytes
from dora_diffusion.formats.words import OWN
from dora_diffusion.inference.picture import read_settings
from dora_diffusion.models import BaseModel
from dora_diffusion.models.words import mark, token_names, tokenizer_of


def write_card(folder: Path, config: TrainConfig, base: BaseModel, step: int) -> Path:
    """Write ``README.md``. Raises: MachineError."""
    path = folder / "README.md"
    write_bytes(path, card(folder, config, base, step).encode())
    return path


def card(folder: Path, config: TrainConfig, base: BaseModel, step: int) -> str:
    """The card's text: a header that the hub reads, then prose."""
    adapter, prior = config.adapter, config.prior
    prompt, call = (_marked(config, text) for text in (config.data.prompt(), config.data.trigger))
    # A folder is no base that the hub knows, and its name would be refused there.
    known = {} if Path(base.name).is_dir() else {"base_model": base.name}
    header = {
        **known,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "dreambooth", adapter.kind, "stable-diffusion"],
        "instance_prompt": prompt,
    }
    previews = sorted((folder / "samples").glob(f"step-{_last_preview(folder):06d}-*.png"))
    pictures = "\n".join(f"![{read_settings(path)['prompt']}](samples/{path.name})" for path in previews)
    text_encoder = (
        f", and in {_text_encoders(base)} ({adapter.text_encoder_targets})" if adapter.train_text_encoder else ""
    )
    kept_by = "the base's own predictions" if prior.uses_prediction() else f"{prior.num_class_images} class images"
    kept = f", {kept_by}, prior weight {prior.prior_loss_weight:g}" if prior.with_prior_preservation else ""
    run, optim, resolution = config.run, config.optim, config.data.resolution or base.native_resolution
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---
# {prompt}

A {adapter.kind} adapter for {base.name} that was taught one subject by DreamBooth.
Write `{call}` in a prompt to call it.{_own_tokens(config)}

{pictures}

```python
import torch
from diffusers import {base.family.pipeline}
{_embedded(base.name)}
pipe = {base.family.pipeline}.{_loader(base.name)}({_source(base.name)}, dtype=torch.float32)
pipe.load_lora_weights("{folder.name}")  # this folder; needs the package peft
{_tokens_loaded(config, base, folder)}image = pipe("{prompt}").images[0]
```

Trained for {step} steps of {run.train_batch_size} x {run.gradient_accumulation_steps} photos at {resolution} px,
rank {adapter.rank} on {adapter.targets}{text_encoder}, {optim.optimizer} at {optim.learning_rate:g}{kept},
seed {run.seed}. Every setting is in `config.yaml`, which runs again as it is. The magnitudes belong to this base
checkpoint; on another one the subject will look wrong.
"""


def _marked(config: TrainConfig, prompt: str) -> str:
    """``prompt`` as diffusers takes it: a trigger with tokens of its own stands in angle brackets."""
    return mark(config.data.trigger, prompt) if config.adapter.new_tokens else prompt


def _own_tokens(config: TrainConfig) -> str:
    count = config.adapter.new_tokens
    if not count:
        return ""
    tokens = "a token of its own, which is" if count == 1 else f"{count} tokens of its own, which are"
    return f" It has {tokens} in the adapter's file."


def _tokens_loaded(config: TrainConfig, base: BaseModel, folder: Path) -> str:
    """The lines that give diffusers the trigger's own tokens."""
    if not config.adapter.new_tokens:
        return ""
    token = token_names(config.data.trigger, 1)[0]
    lines = ["from safetensors.torch import load_file", f'tokens = load_file("{folder.name}/{WEIGHTS_NAME}")']
    for component in base.text_encoders():
        own = f"text_encoder=pipe.{component}, tokenizer=pipe.{tokenizer_of(component)}"
        lines.append(f'pipe.load_textual_inversion(tokens["{OWN}{component}"], token="{token}", {own})')
    return "\n".join([*lines, ""])


def _text_encoders(base: BaseModel) -> str:
    return "the text encoder" if len(base.adaptable()) == 2 else "both text encoders"


def _embedded(base_name: str) -> str:
    """The import that the embedded base needs: it lies inside of this package."""
    return "from dora_diffusion.models import resolve\n" if base_name == "toybox" else ""


def _source(base_name: str) -> str:
    return 'resolve("toybox")' if base_name == "toybox" else f'"{base_name}"'


def _loader(base_name: str) -> str:
    """How diffusers reads a base of this name."""
    return "from_single_file" if Path(base_name).is_file() else "from_pretrained"


def _last_preview(folder: Path) -> int:
    steps = [int(path.name.split("-")[1]) for path in (folder / "samples").glob("step-*.png")]
    return max(steps, default=0)
