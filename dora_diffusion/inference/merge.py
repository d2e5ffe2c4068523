"""``merge(config)``: a plain diffusers pipeline folder, or one checkpoint file, with the subject in its weights."""

import json
import logging
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from dora_diffusion.adapters import AdapterState
from dora_diffusion.config import MergeConfig
from dora_diffusion.config.guidance import STAMP
from dora_diffusion.errors import ConfigError, MachineError
from dora_diffusion.formats import load_adapter
from dora_diffusion.formats.base_files import open_base
from dora_diffusion.formats.words import lay_beside
from dora_diffusion.inference.device import PRECISIONS
from dora_diffusion.inference.generate import base_name_for, load_for
from dora_diffusion.inference.merge_checkpoint import MERGED, write_merged_checkpoint
from dora_diffusion.inference.merged_pipeline import MergedWeights
from dora_diffusion.machine import check_writable
from dora_diffusion.models import resolve
from dora_diffusion.models.quiet import no_progress_bars
from dora_diffusion.models.words import write_out_word

logger = logging.getLogger(__name__)


def merge(config: MergeConfig) -> Path:
    """Write the base with the adapter merged in, as a folder that plain diffusers loads, or as one checkpoint file.

    Merged in float32 from the base's own weights and cast once. Folder or file are complete or not there.

    Raises:
        ConfigError: no adapter given, or the folder is in use.
        ModelError, FormatError, AdapterError, MachineError: base, adapter or disk are not fit.
    """
    if config.adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    if config.single_file:
        return _merge_checkpoint(config, config.adapter)
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
    _write(base.pipe, folder, _stamp(config.adapter, base.name, config.strength, state))
    return folder


def _merge_checkpoint(config: MergeConfig, adapter: Path) -> Path:
    """One file: ``output_dir``, which may be given with its ending."""
    folder = config.output_dir
    path = folder if folder.suffix == ".safetensors" else folder.with_name(f"{folder.name}.safetensors")
    check_writable(path.parent, 0)
    state = load_adapter(adapter)
    name = base_name_for(config.pretrained_model_name_or_path, state)
    base = open_base(name, allow_pickle=config.allow_pickle)
    if path.resolve() == Path(resolve(base.name)).resolve():
        raise ConfigError(f"{path} is the base itself; give another --output_dir.")
    if path.exists() and not _is_ours(path):
        raise ConfigError(f"{path} is there and is no merged checkpoint of ours; give another --output_dir.")
    stamp = json.dumps(_stamp(adapter, base.name, config.strength, state))
    write_merged_checkpoint(
        base, state, path, strength=config.strength, dtype=PRECISIONS[config.precision], stamp=stamp
    )
    if state.word is not None:
        lay_beside(state.word, path, is_inside=False)  # a checkpoint brings no tokenizer
    return path


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return MERGED in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _stamp(adapter: Path, base_name: str, strength: float, state: AdapterState) -> dict[str, object]:
    return {"merged": True, "adapter": adapter.name, "base": base_name, "strength": strength, "kind": state.kind}


def _write(pipe: torch.nn.Module, folder: Path, stamp: dict[str, object]) -> None:
    """Write beside the target and rename: a crash leaves no half pipeline."""
    fresh = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with no_progress_bars():
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
