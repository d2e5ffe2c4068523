"""A checkpoint as an adapter: a run goes on from it, and nothing else reads it; here it is written as others do."""

import json
from pathlib import Path
from typing import Any

import torch

from dora_diffusion.adapters import inject
from dora_diffusion.config import TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import FormatError
from dora_diffusion.formats import adapter_file, read_safetensors
from dora_diffusion.formats.checkpoint_folders import checkpoints, step_of
from dora_diffusion.models import load_base
from dora_diffusion.models.words import start_rows
from dora_diffusion.registry import FORMATS
from dora_diffusion.studio.tasks.desk import Desk
from dora_diffusion.training.checkpoint import ADAPTER, EMA

CONFIG = "config.yaml"


def adapter(desk: Desk, *, path: str) -> dict[str, Any]:
    """The adapter file behind a run folder, a checkpoint folder or a file: {"path"}."""
    return {"path": str(usable_adapter(desk, Path(path)))}


def usable_adapter(desk: Desk, path: Path) -> Path:
    """The adapter file behind ``path``; that of a checkpoint is made the first time, beside its run.

    Raises:
        FormatError: there is none, or it is not whole.
        ModelError: the base of a checkpoint's run cannot be loaded.
    """
    if path not in checkpoints(path.parent):
        return adapter_file(path)
    made = path.parent.parent / "adapters" / f"{path.name}.safetensors"
    stamp = made.with_suffix(".json")
    mark = _mark(path)
    if not (made.is_file() and stamp.is_file() and json.loads(stamp.read_text()) == mark):
        _write(desk, path, made)
        stamp.write_text(json.dumps(mark))
    return made


def _write(desk: Desk, checkpoint: Path, made: Path) -> None:
    """Put the checkpoint's numbers into a fresh adapter of the run's settings, and write that."""
    desk.tell("note", text=f"Opening the checkpoint of step {step_of(checkpoint)}.")
    config = load_yaml(TrainConfig, checkpoint.parent / CONFIG)
    model = config.model
    base = load_base(
        model.pretrained_model_name_or_path,
        revision=model.revision,
        variant=model.variant,
        prediction_type=model.prediction_type,
        rescale_betas_zero_snr=model.rescale_betas_zero_snr,
        allow_pickle=model.allow_pickle,
    )
    desk.check_stop()
    base.freeze()
    wanted, data = config.adapter, config.data
    if wanted.new_tokens:
        start = wanted.new_tokens_init or data.class_noun or data.trigger
        rows = start_rows(base.pipe, base.text_encoders(), start, wanted.new_tokens, config.run.seed)
        base.learn_word(data.trigger, rows)
    taught = inject(base, wanted, config.run.seed)
    # What a finished run publishes: the average, where one is kept.
    averaged = checkpoint / EMA
    tensors, _ = read_safetensors(averaged if averaged.is_file() else checkpoint / ADAPTER)
    for buffer in taught.buffers:
        found = tensors.get(buffer.name)
        if found is None or found.shape != buffer.parameter.shape:
            raise FormatError(f"The checkpoint of step {step_of(checkpoint)} is not whole: {buffer.name} is missing.")
        with torch.no_grad():
            buffer.parameter.copy_(found)
    metadata = {
        "step": str(step_of(checkpoint)),
        "instance_prompt": data.prompt(),
        "trigger": data.trigger,
        "class_noun": data.class_noun or "",
        "resolution": str(data.resolution or base.native_resolution),
        **base.schedule_facts(),
    }
    made.parent.mkdir(exist_ok=True)
    FORMATS.load("diffusers").write(taught.state(base.name, metadata), made)


def _mark(checkpoint: Path) -> list[int]:
    """What tells whether a step was trained again since."""
    facts = (checkpoint / ADAPTER).stat()
    return [facts.st_mtime_ns, facts.st_size]
