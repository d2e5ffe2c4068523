"""A base model's tensors, read from its files one at a time: what fits no memory as a whole is still worked on.

A base is a folder in diffusers' layout (or a hub's snapshot of one) or a one-file checkpoint; both are seen two ways,
as the weights of adaptable layers by canonical name, and as the tensors of a checkpoint in the original layout.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dora_diffusion.errors import ModelError
from dora_diffusion.formats.checkpoint_layout import CheckpointLayout, Place, unused_tensors
from dora_diffusion.models import load_base, resolve
from dora_diffusion.models.load import family_of
from dora_diffusion.models.schedule import RESCALED
from dora_diffusion.models.single_file import CONFIGURATIONS, of_another_size
from dora_diffusion.models.targets import layer_name

_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_MIDDLE = "mid_block.resnets.0.conv1"  # its width tells the size of a UNet
Makers = Mapping[str, Callable[[], Tensor]]


class Tensors(Mapping[str, Tensor]):
    """Tensors by name, each made when it is asked for and not kept."""

    def __init__(self, makers: Makers):
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __contains__(self, name: object) -> bool:
        return name in self._makers


@dataclass(frozen=True)
class BaseFiles:
    """A base model as tensors on demand, on the CPU.

    Args:
        name: what the user calls it.
        family: a name in ``registry.FAMILIES``.
        weights: the frozen weights of adaptable layers by canonical name, float32.
        checkpoint: all floating-point tensors in the original layout, by key, as they are stored.
        places: where each of ``weights`` lies in ``checkpoint``.
        schedule: what is known of the noise schedule, as ``schedule_facts`` tells it; empty for a checkpoint.
    """

    name: str
    family: str
    weights: Mapping[str, Tensor]
    checkpoint: Mapping[str, Tensor]
    places: Mapping[str, Place]
    schedule: Mapping[str, str]


def open_base(name: str, configurations: Path = CONFIGURATIONS, allow_pickle: bool = False) -> BaseFiles:
    """Open a base without reading its weights; what cannot be read lazily (pickles, a hub name) is loaded whole.

    Args:
        name: "toybox", a folder, a ``.safetensors`` checkpoint or a hub name.
        configurations: folder of the configurations of single files.
        allow_pickle: read ``.bin`` and ``.ckpt`` files, which can run any code they like.

    Raises:
        ModelError: no such model, or its files cannot be read.
    """
    source = Path(resolve(name))
    if source.is_file() and source.suffix.lower() == ".safetensors":
        return _from_checkpoint(name, source, configurations)
    folder = source if source.is_dir() else _snapshot(name)
    files = None if folder is None else _folder_files(folder)
    if folder is not None and files is not None:
        return _from_folder(name, folder, files)
    return _from_pipeline(name, allow_pickle)


def only(tensors: Mapping[str, Tensor], names: Iterable[str]) -> Tensors:
    """Those called ``names``, still made only when asked for."""

    def maker(name: str) -> Callable[[], Tensor]:
        return lambda: tensors[name]

    return Tensors({name: maker(name) for name in names})


def is_here(name: str) -> bool:
    """Whether a base can be opened without a download."""
    return Path(resolve(name)).exists() or _snapshot(name) is not None


def _from_checkpoint(name: str, file: Path, configurations: Path) -> BaseFiles:
    family = family_of(name)
    folder = configurations / family.configuration(None)
    layout = CheckpointLayout.of(family.name, _config(folder, "unet"), _config(folder, "vae"))
    stored = {key: make for key, make in _read_lazily(file).items() if not key.startswith("model_ema.")}
    models = _empty_models(folder)
    places, missing = {}, []
    for layer, (component, path) in _layers(models).items():
        place = layout.place(component, f"{path}.weight")
        if place is None or place.key not in stored:
            missing.append(layer)
        else:
            places[layer] = place
    if missing:
        raise of_another_size(name, family, f"{len(missing)} layers are missing, first {missing[0]}")
    width = stored[places[f"unet.{_MIDDLE}"].key]().shape[0]
    published = models["unet"].get_parameter(f"{_MIDDLE}.weight").shape[0]
    if width != published:
        raise of_another_size(name, family, f"{width} channels instead of {published}")
    weights = {layer: _taken(stored[place.key], place) for layer, place in places.items()}
    return BaseFiles(name, family.name, Tensors(weights), Tensors(stored), places, {})


def _from_folder(name: str, folder: Path, files: Mapping[str, list[Path]]) -> BaseFiles:
    tensors = {
        f"{component}.{key}": make
        for component, paths in files.items()
        for path in paths
        for key, make in _read_lazily(path).items()
    }
    layout = CheckpointLayout.of(family_of(str(folder)).name, _config(folder, "unet"), _config(folder, "vae"))
    width = int(_config(folder, "text_encoder").get("hidden_size", 0))
    return _from_parts(name, layout, tensors, _layers(_empty_models(folder)), width, _schedule(folder))


def _from_pipeline(name: str, allow_pickle: bool) -> BaseFiles:
    base = load_base(name, allow_pickle=allow_pickle)
    parts: dict[str, nn.Module] = {"vae": base.vae, **base.adaptable()}
    tensors = {
        f"{component}.{key}": _always(tensor)
        for component, model in parts.items()
        for key, tensor in model.state_dict().items()
    }
    layout = CheckpointLayout.of(base.family.name, base.unet.config, base.vae.config)
    width = int(base.pipe.text_encoder.config.hidden_size)
    return _from_parts(name, layout, tensors, _layers(base.adaptable()), width, base.schedule_facts())


def _from_parts(
    name: str,
    layout: CheckpointLayout,
    tensors: Makers,
    layers: Mapping[str, tuple[str, str]],
    width: int,
    schedule: Mapping[str, str],
) -> BaseFiles:
    """From a model's tensors by "component.name"."""
    pieces: dict[str, list[tuple[Place, Callable[[], Tensor]]]] = {}
    places: dict[str, Place] = {}
    makers: dict[str, Callable[[], Tensor]] = {}
    for full, make in tensors.items():
        component, _, inner = full.partition(".")
        place = layout.place(component, inner)
        if place is not None:
            pieces.setdefault(place.key, []).append((place, make))
            layer = layer_name(component, inner.removesuffix(".weight"))
            if inner.endswith(".weight") and layer in layers:
                places[layer], makers[layer] = place, _in_float32(make)
    stored = {key: _joined(found) for key, found in pieces.items()}
    for key, other in unused_tensors(layout, stored, width).items():
        stored[key] = stored[other] if isinstance(other, str) else _always(other)
    weights = Tensors({layer: makers[layer] for layer in layers if layer in makers})
    return BaseFiles(name, layout.family, weights, Tensors(stored), places, schedule)


def _joined(pieces: list[tuple[Place, Callable[[], Tensor]]]) -> Callable[[], Tensor]:
    """One tensor of a checkpoint from the model's one, or from q, k and v."""

    def make() -> Tensor:
        in_order = sorted(pieces, key=lambda piece: piece[0].part or 0)
        tensors = [place.shape(read()) for place, read in in_order]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    return make


def _taken(read: Callable[[], Tensor], place: Place) -> Callable[[], Tensor]:
    return lambda: place.take(read()).float().contiguous()


def _always(tensor: Tensor) -> Callable[[], Tensor]:
    def make() -> Tensor:
        return tensor

    return make


def _in_float32(read: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return lambda: read().float()


def _read_lazily(file: Path) -> dict[str, Callable[[], Tensor]]:
    """Every floating-point tensor of a safetensors file, each read from the file when it is asked for.

    Raises:
        ModelError: it is no whole safetensors file.
    """
    try:
        opened = safe_open(file, framework="pt", device="cpu")
        keys = [key for key in opened.keys() if opened.get_slice(key).get_dtype() in _FLOATS]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is no whole safetensors file ({str(error).splitlines()[0]}).") from None
    return {key: partial(opened.get_tensor, key) for key in keys}


def _layers(models: Mapping[str, nn.Module]) -> dict[str, tuple[str, str]]:
    """(component, path) of every layer that an adapter can sit on, by canonical name."""
    return {
        layer_name(component, path): (component, path)
        for component, model in models.items()
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _empty_models(folder: Path) -> dict[str, nn.Module]:
    """The adaptable models that a folder's configurations describe, without memory for their weights."""
    import diffusers
    import transformers

    index = _read_json(folder / "model_index.json")
    models: dict[str, nn.Module] = {}
    for component in _COMPONENTS:
        if component == "vae" or component not in index:
            continue
        kind = index[component][1]
        with torch.device("meta"):
            if component == "unet":
                models[component] = getattr(diffusers, kind).from_config(_config(folder, component))
            else:
                cls = getattr(transformers, kind)
                models[component] = cls(cls.config_class.from_pretrained(folder, subfolder=component))
    return models


def _folder_files(folder: Path) -> dict[str, list[Path]] | None:
    """The safetensors files of every part: the plain ones, else the only variant; None where a part has none."""
    found: dict[str, list[Path]] = {}
    for component in _COMPONENTS:
        if not (folder / component).is_dir():
            continue
        stem = "model" if component.startswith("text_encoder") else "diffusion_pytorch_model"
        plain = [*folder.glob(f"{component}/{stem}.safetensors")] or [*folder.glob(f"{component}/{stem}-*.safetensors")]
        half = [path for path in folder.glob(f"{component}/{stem}*.safetensors") if ".fp16" in path.name]
        found[component] = sorted(plain or half)
    return found if len(found) >= 3 and all(found.values()) else None


def _snapshot(name: str) -> Path | None:
    """The folder of a hub's model that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(name, "model_index.json")
    except HFValidationError:
        return None
    return Path(index).parent if isinstance(index, str) else None


def _schedule(folder: Path) -> dict[str, str]:
    config = _read_json(folder / "scheduler" / "scheduler_config.json")
    facts = {"prediction_type": str(config.get("prediction_type", "epsilon"))}
    return {**facts, RESCALED: "true"} if config.get(RESCALED) else facts


def _config(folder: Path, component: str) -> dict[str, Any]:
    return _read_json(folder / component / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no settings.")
    return content


_FLOATS = {"F64", "F32", "F16", "BF16"}
