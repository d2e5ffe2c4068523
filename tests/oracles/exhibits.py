"""Files to ask the programs about: every format of ours on every family, and files as they are met."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import wild
from asking import BaseOnDisk, put_on_disk
from safetensors.torch import save_file
from slim_models import moved_on, slim_base
from torch import Tensor

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.lowrank import RankRule
from dora_diffusion.adapters.plain_lora import plain_lora
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.verify import Merged
from dora_diffusion.registry import FORMATS

FAMILIES = ("sd1", "sd2", "sdxl")


@dataclass(frozen=True)
class Exhibit:
    """A file. ``state`` is the adapter it was written from; None: nobody knows what it should give."""

    name: str
    base: BaseOnDisk
    file: Path
    state: AdapterState | None = None

    @cached_property
    def wanted(self) -> Mapping[str, Tensor]:
        """The weights it should give, of the layers it changes."""
        assert self.state is not None
        return dict(Merged(self.state, self.base.weights.weights))


def base_of(family: str, folder: Path) -> BaseOnDisk:
    """A slim base with every layer of the originals, written for the workers."""
    return put_on_disk(slim_base(family), folder / family)


def states(base: BaseOnDisk) -> dict[str, AdapterState]:
    """Adapters of one base: what a quick start trains, and everything there is."""
    return {
        "attention": moved_on(base.model, targets="attn", text_encoders=False),
        "everything": moved_on(base.model, targets="."),
        "LoRA": moved_on(base.model, kind="lora", targets="."),
    }


def exports(base: BaseOnDisk, folder: Path) -> Iterator[Exhibit]:
    """Every registered format of every adapter; the format lora of the plain LoRA nearest to it."""
    folder.mkdir(parents=True)
    for what, whole in states(base).items():
        nearest, _ = plain_lora(whole, base.weights.weights, RankRule(rank=4))
        for name in FORMATS:
            form, state = FORMATS.load(name), nearest if name == "lora" else whole
            file = folder / f"{name}-{what}{form.suffix}"
            form.write(state, file, LoadedBase(base.model))
            yield Exhibit(f"{name} of {what}", base, file, state)


def met(base: BaseOnDisk, folder: Path) -> Iterator[Exhibit]:
    """Files of other tools, for other tools, or wrong."""
    folder.mkdir(parents=True)
    for name, content in _met(base).items():
        file = folder / f"{name.replace(' ', '-')}.safetensors"
        tensors = {key: tensor.contiguous() for key, tensor in content.tensors.items()}
        save_file(tensors, file, {"format": "pt", **content.header})
        yield Exhibit(name, base, file)


def _met(base: BaseOnDisk) -> dict[str, wild.WildFile]:
    family, original = base.weights.family, base.original
    attention, everything, plain = states(base).values()
    other_names = "sd1" if family == "sdxl" else "sdxl"
    peft = wild.peft_keys(attention)
    magnitudes = [key for key in peft.tensors if "magnitude" in key]
    no_dora = {"unet.r": 4, "unet.lora_alpha": 8, "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    half = replace(everything, layers={k: v for k, v in everything.layers.items() if not _is_half(k)})
    return {
        "one norm a row": wild.kohya(everything, family, original),
        "one norm a column": wild.kohya(everything, family, original, "columns"),
        "scales in one dimension": wild.kohya(attention, family, original, "flat"),
        "plain": wild.kohya(plain, family, original),
        "without alphas": wild.without(wild.kohya(plain, family, original), ".alpha"),
        "several alphas": wild.with_alphas(
            wild.kohya(plain, family, original), {"_to_q": 3.0, "ff_net": 2.0, "conv": 5.0, "q_proj": 1.0, "mlp_": 9.0}
        ),
        "names of another family": wild.kohya(plain, other_names, original),
        "some layers without a scale": wild.without(wild.kohya(attention, family, original), "_to_q.dora_scale"),
        "text encoders in part": wild.kohya(half, family, original),
        "full differences": wild.differences(everything, family, original),
        "PEFT keys": wild.peft_keys(everything),
        "magnitudes without weight": wild.peft_keys(everything, ".lora_magnitude_vector"),
        "some layers without a magnitude": wild.without(peft, *magnitudes[:3]),
        "metadata without use_dora": wild.WildFile(peft.tensors, {"lora_adapter_metadata": json.dumps(no_dora)}),
        "old keys": wild.old_keys(attention),
        "old keys in text encoders": wild.old_keys(everything),
    }


def _is_half(layer: str) -> bool:
    return layer.startswith("text_encoder") and layer.endswith(("k_proj", "out_proj"))
