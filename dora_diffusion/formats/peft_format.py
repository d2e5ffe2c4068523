"""PEFT's own folders, one a component: ``PeftModel.from_pretrained(pipe.unet, "<folder>/unet")``.

    <folder>/<component>/adapter_config.json          r, lora_alpha, rank_pattern, alpha_pattern, use_dora, ...
    <folder>/<component>/adapter_model.safetensors
        base_model.model.<path>.lora_A.weight         (rank, in) or (rank, in, kh, kw)
        base_model.model.<path>.lora_B.weight         (out, rank) or (out, rank, 1, 1)
        base_model.model.<path>.lora_magnitude_vector (out,) or (1, out, 1, 1)

Alphas are the configuration's. PEFT takes layers by the very paths of the model in memory; those of CLIP's first text
encoder are transformers 5's, which has no level "text_model" there and still has one in the second. Only fields that
every PEFT with DoRA knows are written: it refuses others.
"""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dora_diffusion.adapters import AdapterState, LayerState
from dora_diffusion.errors import ConfigError, FormatError, MachineError
from dora_diffusion.formats import parts as of
from dora_diffusion.formats.diffusers_format import peft_tensors
from dora_diffusion.formats.files import check_finite, read_safetensors, write_bytes, write_safetensors
from dora_diffusion.formats.format import Base, Precision
from dora_diffusion.formats.header import own_header, read_own
from dora_diffusion.formats.names import canonical
from dora_diffusion.formats.peft_config import LayerScales
from dora_diffusion.formats.rounding import round_to

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
_ROOT = "base_model.model."
_CONFIG_KEY = "adapter_config"  # of the header that ``read_folder`` makes, per component


class PeftFormat:
    """Writes and reads PEFT's folders."""

    name = "peft"
    readers = "PEFT (PeftModel.from_pretrained), with transformers 5 for text encoders"
    suffix = ""
    needs_base = False
    carries_words = False

    def recognises(self, keys: list[str]) -> bool:
        """Whether these tensor names are of this format, as ``read_folder`` gives them."""
        return any(f".{_ROOT}" in f".{key}" for key in keys)

    def write(self, state: AdapterState, path: Path, base: Base | None = None, precision: Precision = "fp32") -> None:
        """Write the folders beside ``path`` and rename them to it. Raises: FormatError, ConfigError, MachineError."""
        if path.exists() and not is_peft_folder(path) and not is_empty_folder(path):
            raise ConfigError(f"{path} is there and is no folder of PEFT's; give another --output.")
        fresh = path.with_name(f".{path.name}.writing")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            for component in COMPONENTS:
                layers = {k: v for k, v in state.layers.items() if k.startswith(f"{component}.")}
                if layers:
                    _write_component(fresh / component, component, replace(state, layers=layers), precision)
            if path.exists():
                shutil.rmtree(path)
            fresh.replace(path)
        except OSError as error:
            raise MachineError(f"{path} cannot be written: {error.strerror or error}. Give another --output.") from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def read(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str], base: Base | None = None
    ) -> AdapterState:
        """Read what ``read_folder`` found. See ``Format.read``."""
        check_finite(path, tensors)
        layers = of.split(path, tensors, lambda spelled: canonical(spelled.replace(f".{_ROOT}", ".", 1)))
        has_magnitude = of.check_all_or_none(path, layers, of.MAGNITUDE, "a magnitude")
        scales = {component: _scales(path, component, header) for component in COMPONENTS}
        state = {}
        for name, parts in layers.items():
            component, _, inside = name.partition(".")
            of.refuse_alphas(path, parts)
            layer = of.factors(path, name, parts, 1.0)
            known = scales[component]
            if known is None:
                raise FormatError(
                    f"{path} has no {CONFIG} for {component}, without which its alphas are not known. Give the folder "
                    "as PEFT saved it."
                )
            known.check_kind(path, component, has_magnitude)
            layer = replace(layer, scale=known.of(inside, layer.rank))
            if has_magnitude:
                layer = replace(layer, magnitude=of.magnitude(path, name, parts[of.MAGNITUDE], layer))
            state[name] = layer
        base_name, fingerprint, metadata = read_own(path, header)
        if not base_name:
            base_name = _base_name(header)
        return AdapterState("dora" if has_magnitude else "lora", state, base_name, fingerprint, metadata)


def _write_component(folder: Path, component: str, state: AdapterState, precision: Precision) -> None:
    tensors: dict[str, Tensor] = {}
    layers: dict[str, LayerState] = {}
    for name, layer in state.layers.items():
        path = _module_path(component, name)
        layers[path] = layer
        A, B, magnitude = peft_tensors(layer)
        tensors[f"{_ROOT}{path}.lora_A.weight"] = round_to(A, precision, name)
        tensors[f"{_ROOT}{path}.lora_B.weight"] = round_to(B, precision, name)
        if magnitude is not None:
            tensors[f"{_ROOT}{path}.lora_magnitude_vector"] = magnitude
    config = json.dumps(_config(state, layers), indent=2, sort_keys=True)
    write_bytes(folder / CONFIG, config.encode())
    write_safetensors(folder / WEIGHTS, tensors, own_header(state))


def _module_path(component: str, name: str) -> str:
    path = name.removeprefix(f"{component}.")
    return path.removeprefix("text_model.") if component == "text_encoder" else path


def _config(state: AdapterState, layers: dict[str, LayerState]) -> dict[str, Any]:
    ranks = {path: layer.rank for path, layer in layers.items()}
    alphas = {path: layer.scale * layer.rank for path, layer in layers.items()}
    rank, alpha = (Counter(numbers.values()).most_common(1)[0][0] for numbers in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": state.base_name or None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{path}": number for path, number in ranks.items() if number != rank},
        "alpha_pattern": {f"^{path}": number for path, number in alphas.items() if number != alpha},
        "target_modules": list(layers),
        "use_dora": state.kind == "dora",
        "use_rslora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def is_peft_folder(path: Path) -> bool:
    """Whether a folder is one PEFT component, or holds some."""
    return any((folder / CONFIG).is_file() for folder in (path, *(path / component for component in COMPONENTS)))


def is_empty_folder(path: Path) -> bool:
    """Whether a folder is there that nothing lies in: somebody made it to write into."""
    return path.is_dir() and not any(path.iterdir())


def read_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All components' tensors, keys headed by the component, and one header that holds their configurations.

    Raises:
        FormatError: a file is missing or damaged, or nothing says which component a folder is of.
    """
    folders = {c: path / c for c in COMPONENTS if (path / c / CONFIG).is_file()}
    if not folders:
        folders = {component_of(path): path}
    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    for component, folder in folders.items():
        found, said = read_safetensors(folder / WEIGHTS)
        tensors |= {f"{component}.{key}": tensor for key, tensor in found.items()}
        header |= said | {f"{component}.{_CONFIG_KEY}": _read_text(folder / CONFIG)}
    return tensors, header


def component_of(folder: Path) -> str:
    """Which part of a pipeline a folder of PEFT's adapts, by its name, else by its tensors.

    Raises:
        FormatError: neither says so.
    """
    name = folder.resolve().name
    if name in COMPONENTS:
        return name
    tensors, _ = read_safetensors(folder / WEIGHTS)
    if all(("down_blocks." in key or "mid_block." in key or "up_blocks." in key) for key in tensors):
        return "unet"
    raise FormatError(
        f"{folder} does not say which part of a pipeline it adapts. Call the folder unet, text_encoder or "
        "text_encoder_2."
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {error}.") from None


def _read_config(path: Path, component: str, header: dict[str, str]) -> dict[str, Any] | None:
    text = header.get(f"{component}.{_CONFIG_KEY}")
    if text is None:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {component}/{CONFIG} cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise FormatError(f"{path}: {component}/{CONFIG} holds no settings.")
    return config


def _scales(path: Path, component: str, header: dict[str, str]) -> LayerScales | None:
    config = _read_config(path, component, header)
    if config is None:
        return None
    if config.get("peft_type", "LORA") != "LORA":
        raise FormatError(f"{path}: {component} is a {config['peft_type']}; of PEFT's kinds, LORA is read.")
    return LayerScales(config)


def _base_name(header: dict[str, str]) -> str:
    for component in COMPONENTS:
        text = header.get(f"{component}.{_CONFIG_KEY}")
        if text is not None and (name := json.loads(text).get("base_model_name_or_path")):
            return str(name)
    return ""


PEFT = PeftFormat()
