"""``merge(config)``: a plain diffusers pipeline folder with the subject in its weights."""

import json
import logging
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from dora_diffusion.config import MergeConfig
from dora_diffusion.errors import ConfigError, MachineError
from dora_diffusion.formats import load_adapter
from dora_diffusion.inference.device import PRECISIONS
from dora_diffusion.inference.generate import load_for
from dora_diffusion.inference.merged_pipeline import MergedWeights
from dora_diffusion.machine import check_writable
from dora_diffusion.models.words import write_out_word

logger = logging.getLogger(__name__)

STAMP = "dora_diffusion_merge.json"


def merge(config: MergeConfig) -> Path:
    """Write the base with the adapter merged in, as a folder that plain diffusers loads.

    Merged in float32 from the base's own weights and cast once. The folder is complete or not there.

    Raises:
        ConfigError: no adapter given, or the folder is in use.
        ModelError, FormatError, AdapterError, MachineError: base, adapter or disk are not fit.
    """
    if config.adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    folder = config.output_dir
    check_writable(folder, 0)
    if folder.exists() and any(folder.iterdir()) and not (folder / STAMP).is_file():
        raise ConfigError(f"{folder} is not empty and holds no merged pipeline of ours; give another --output_dir.")
    state = load_adapter(config.adapter)
    base = load_for(config.pretrained_model_name_or_path, state, allow_pickle=config.allow_pickle)
    size = sum(p.numel() for part in (base.unet, base.vae, *base.adaptable().values()) for p in part.parameters()) * 4
    check_writable(folder.parent, size)
    MergedWeights(base, keep=0).switch(state, config.strength)
    if base.word is not None:
        write_out_word(base.pipe, base.word)
        trigger = base.word.trigger
        logger.warning("In this pipeline the trigger %r is called %s: write that.", trigger, base.word.marked(trigger))
    base.to("cpu", PRECISIONS[config.precision])
    base.vae.to(PRECISIONS[config.precision])
    stamp = {
        "merged": True,
        "adapter": str(config.adapter.name),
        "base": base.name,
        "strength": config.strength,
        "kind": state.kind,
    }
    _write(base.pipe, folder, stamp)
    return folder


def _write(pipe: torch.nn.Module, folder: Path, stamp: dict[str, object]) -> None:
    """Write beside the target and rename: a crash leaves no half pipeline."""
    fresh = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        pipe.save_pretrained(fresh, safe_serialization=True)  # type: ignore[operator]
        (fresh / STAMP).write_text(json.dumps(stamp, indent=2), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        fresh.replace(folder)
    except (OSError, SafetensorError) as error:
        raise MachineError(
            f"{folder} cannot be written: {error}. Free some space, or choose another --output_dir."
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
