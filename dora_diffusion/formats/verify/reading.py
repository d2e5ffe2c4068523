"""What a reader of adapter files is, to a proof: which tensors it takes for which layer, and what it makes of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from dora_diffusion.errors import FormatError
from dora_diffusion.formats.files import check_finite, read_safetensors
from dora_diffusion.formats.peft_format import component_of
from dora_diffusion.formats.verify.layer_names import ldm_paths

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OTHER_KINDS = {
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
    ".oft_": "OFT",
    ".lora_mid": "Tucker decomposition",
    ".a1.weight": "GLoRA",
    ".w_norm": "norm",
}


class MisfitError(Exception):
    """The reader stumbles over one layer."""


@dataclass(frozen=True)
class AdapterFile:
    """A file's content, or that of PEFT's folders.

    Args:
        tensors: by key, in the file's order; those of a folder by ``component/key``.
        header: the metadata of a safetensors file.
        configs: ``adapter_config.json`` of each component, where there are folders.
    """

    tensors: Mapping[str, Tensor]
    header: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_adapter_file(path: Path) -> AdapterFile:
    """A safetensors file, or a folder with PEFT's folders in it, one a component, or one of these.

    Raises:
        FormatError: there is none, it is damaged, holds numbers that are not finite, or layers of another kind.
    """
    if not path.is_dir():
        tensors, header = read_safetensors(path)
        return _judgeable(path, AdapterFile(tensors, header))
    folders = {file.parent.name: file.parent for file in sorted(path.glob(f"*/{PEFT_CONFIG}"))}
    if not folders and (path / PEFT_CONFIG).is_file():
        folders = {component_of(path): path}
    if not folders:
        raise FormatError(f"{path} is a folder without adapters: no <component>/{PEFT_CONFIG} lies in it.")
    found: dict[str, Tensor] = {}
    configs = {}
    for component, folder in folders.items():
        inside, _ = read_safetensors(folder / PEFT_WEIGHTS)
        found |= {f"{component}/{key}": tensor for key, tensor in inside.items()}
        try:
            configs[component] = dict(json.loads((folder / PEFT_CONFIG).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FormatError(f"{folder / PEFT_CONFIG} cannot be read: {error}.") from None
    return _judgeable(path, AdapterFile(found, configs=configs))


def _judgeable(path: Path, file: AdapterFile) -> AdapterFile:
    check_finite(path, file.tensors)
    for key, tensor in file.tensors.items():
        if tensor.numel() == 0:
            raise FormatError(f"{path} holds an empty tensor, {key}.")
        if key.endswith(".alpha") and tensor.numel() != 1:
            raise FormatError(f"{path}: {key} is one number, got a tensor {list(tensor.shape)}.")
        kind = next((kind for mark, kind in OTHER_KINDS.items() if mark in key), None)
        if kind:
            raise FormatError(f"{path} holds a {kind} ({key}); LoRA, DoRA and full differences can be verified.")
    try:
        settings = json.loads(file.header.get("lora_adapter_metadata", "{}"))
    except ValueError as error:
        raise FormatError(f"{path} has a lora_adapter_metadata that cannot be read: {error}.") from None
    if not isinstance(settings, dict):
        raise FormatError(f"{path} has a lora_adapter_metadata that holds no settings.")
    return file


@dataclass(frozen=True)
class BaseWeights:
    """The base that a file is read onto.

    Args:
        family: a name in ``registry.FAMILIES``.
        weights: of every Linear and Conv2d of UNet and text encoders, by canonical name (``unet.<diffusers path>``,
            ``text_encoder.text_model.<path>``); the UNet's whole, because its layout is found from them.
    """

    family: str
    weights: Mapping[str, Tensor]

    @cached_property
    def unet_paths(self) -> dict[str, str]:
        """diffusers' path of every layer of the UNet to its path in the original layout."""
        return ldm_paths([name.removeprefix("unet.") for name in self.weights if name.startswith("unet.")])

    @cached_property
    def text_layers(self) -> dict[str, tuple[str, str]]:
        """Canonical name of every layer of the text encoders to (component, path that starts with text_model)."""
        parts = {name: name.partition(".") for name in self.weights if name.startswith("text_encoder")}
        return {name: (component, path) for name, (component, _, path) in parts.items()}


@dataclass(frozen=True)
class Found:
    """What a reader takes from a file for one layer; tensors as they lie there.

    Args:
        keys: of the tensors that shape the result.
        down, up: the two factors, or None where the file has the difference itself.
        scale: what their product is multiplied with.
        magnitude: per row, per column or whatever the reader makes of its shape; None for plain LoRA.
        diff: the difference itself.
        keeps_norm: the magnitude was lost on the way, and the base's own row norms stand for it.
    """

    keys: tuple[str, ...]
    down: Tensor | None = None
    up: Tensor | None = None
    scale: float = 1.0
    magnitude: Tensor | None = None
    diff: Tensor | None = None
    keeps_norm: bool = False


@dataclass(frozen=True)
class Reading:
    """A reader's view of a whole file.

    Args:
        layers: by canonical name.
        left_over: keys that change nothing.
        refusal: why the reader loads nothing at all; empty if it does.
        remarks: what it loses on the way, in words.
    """

    layers: Mapping[str, Found]
    left_over: tuple[str, ...] = ()
    refusal: str = ""
    remarks: tuple[str, ...] = ()


class Reader(Protocol):
    """One program's rules, mistakes included. Written from how it behaves, never from how our files are written.

    ``rules`` are the versions whose rules these are; ``stops`` says that one layer that does not fit ends the loading
    of the whole file (or the drawing with it), where other programs leave that layer as it was.
    """

    name: str
    rules: str
    stops: bool

    def find(self, file: AdapterFile, base: BaseWeights) -> Reading:
        """Which tensors it takes for which layer, told without a look at the base's numbers."""

    def merge(self, found: Found, weight: Tensor) -> Tensor:
        """The weight it makes of ``weight`` (float32) at strength 1.

        Raises:
            MisfitError: it stumbles.
        """


def refused(file: AdapterFile, why: str) -> Reading:
    """The reading of a reader that loads nothing."""
    return Reading({}, tuple(file.tensors), why)


def left_over(file: AdapterFile, layers: Mapping[str, Found]) -> tuple[str, ...]:
    """The keys that no layer was made from."""
    used = {key for found in layers.values() for key in found.keys}
    return tuple(key for key in file.tensors if key not in used)
