"""Find a base model by name and load it: the embedded one, a folder in diffusers' layout, a hub repository, a file."""

import json
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from dora_diffusion.errors import ConfigError, ModelError
from dora_diffusion.models.base import BaseModel, Family, ReadConfig
from dora_diffusion.models.quiet import first_line, load_quietly
from dora_diffusion.models.refused import refuse_index, supported
from dora_diffusion.models.schedule import set_schedule
from dora_diffusion.models.single_file import CONFIGURATIONS, family_of_file, load_single_file
from dora_diffusion.registry import FAMILIES

TOYBOX_VARIABLE = "DORA_DIFFUSION_TOYBOX"
_INDEX = "model_index.json"


def load_base(
    name: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    prediction_type: str | None = None,
    rescale_betas_zero_snr: bool = False,
    allow_pickle: bool = False,
    configurations: Path = CONFIGURATIONS,
) -> BaseModel:
    """Load a base model on the CPU. The autoencoder stays float32; the rest is read as ``dtype``.

    Args:
        name: "toybox", a folder, a ``.safetensors`` checkpoint, or a hub name ("runwayml/stable-diffusion-v1-5").
        revision: of the hub repository.
        variant: which weight files; left out, the plain ones if they are there, else fp16.
        prediction_type: overrides what the model's own scheduler says.
        rescale_betas_zero_snr: rescale the noise schedule so that its last timestep is pure noise.
        allow_pickle: read ``.bin`` and ``.ckpt`` files, which can run any code they like.
        configurations: folder of the configurations that single files are read with.

    Raises:
        ModelError: no such model, a part is missing, a family that is not supported, or unreadable files.
        ConfigError: a rescaled schedule for a model that predicts the noise, or a variant of a single file.
    """
    source = resolve(name)
    if Path(source).is_file():
        if revision is not None or variant is not None:
            raise ConfigError(
                f"{name} is a single file, without revisions or variants: leave --revision and --variant out."
            )
        family, pipe = load_single_file(
            Path(source),
            name,
            dtype=dtype,
            prediction_type=prediction_type,
            allow_pickle=allow_pickle,
            configurations=configurations,
        )
    else:
        family, pipe = _load_folder(source, name, revision, variant, dtype, allow_pickle)
    set_schedule(pipe, prediction_type, rescale_betas_zero_snr)
    return BaseModel(name, family, pipe)


def _load_folder(
    source: str, name: str, revision: str | None, variant: str | None, dtype: torch.dtype, allow_pickle: bool
) -> tuple[Family, Any]:
    """From a folder in diffusers' layout, here or on the hub."""
    index = _read_index(source, name, revision)
    family = _family_of(index, _config_reader(source, name, revision), name)
    _check_parts(index, family, name)
    if not Path(source).is_dir() and not _answers(name, _INDEX, revision):
        source = str(_download(name, _INDEX, revision).parent)  # what came before
    if variant is None:
        variant = _find_variant(_unet_files(source, name, revision), name, allow_pickle)
    # None is diffusers' word for "safetensors where there are any, else pickles".
    safe = None if allow_pickle else True

    def load() -> Any:
        return family.load(source, revision=revision, variant=variant, dtype=dtype, use_safetensors=safe)

    return family, load_quietly(name, load)


def family_of(name: str, allow_pickle: bool = False) -> Family:
    """The family of a model that ``load_base`` would load, without reading its weights.

    Raises:
        ModelError: no such model, or a family that is not supported.
    """
    source = resolve(name)
    if Path(source).is_file():
        return family_of_file(Path(source), name, allow_pickle)
    return _family_of(_read_index(source, name, None), _config_reader(source, name, None), name)


def resolve(name: str) -> str:
    """Where a model name leads: "toybox" to a folder, anything else to itself.

    Raises:
        ModelError: toybox's weights are not installed.
    """
    if name != "toybox":
        return name
    folder = _toybox_folder()
    if not (folder / _INDEX).is_file():
        raise ModelError(
            f"The embedded base model 'toybox' has no weights at {folder}. Install dora-diffusion again, set "
            f"{TOYBOX_VARIABLE} to a folder that holds them, or name another base with --pretrained_model_name_or_path."
        )
    return str(folder)


def _toybox_folder() -> Path:
    """In the package, or where the variable says: another one that ``scripts/train_toybox.py`` made."""
    own = os.environ.get(TOYBOX_VARIABLE)
    return Path(own) if own else Path(__file__).parents[1] / "toybox" / "model"


def _read_index(source: str, name: str, revision: str | None) -> dict[str, Any]:
    folder = Path(source)
    if folder.is_dir():
        path = folder / _INDEX
        if not path.is_file():
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
            raise ModelError(f"{name} is no model folder: model_index.json is missing; it holds {found}.")
    else:
        path = _download(name, _INDEX, revision)
    index = _read_json(path)
    if not isinstance(index, dict):
        raise ModelError(f"{path} is not a model index.")
    return index


def _config_reader(source: str, name: str, revision: str | None) -> ReadConfig:
    """Reads a part's ``config.json``: from the folder, or from the hub."""

    def read(part: str) -> Mapping[str, Any]:
        file = f"{part}/config.json"
        path = Path(source) / file if Path(source).is_dir() else _download(name, file, revision)
        # A folder without it is told of when its part is loaded.
        config = _read_json(path) if path.is_file() else {}
        return config if isinstance(config, dict) else {}

    return read


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}.") from None


def _download(name: str, file: str, revision: str | None) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"{name} is neither a folder on this machine nor a hub name (owner/model), and no file either. "
            "Known without a download: toybox. If an adapter's file calls its base so, give the base with "
            "--pretrained_model_name_or_path."
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=not _answers(name, file, revision)))
    except HFValidationError:
        raise ModelError(f"{name} is neither a folder on this machine nor a valid hub name (owner/model).") from None
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{name} is no folder here, and the hub cannot be reached to look for it. Known without a download: toybox."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"The hub has no model {name}, or does not let you read it: {first_line(error)}") from None


def _answers(name: str, file: str, revision: str | None) -> bool:
    """Whether the hub says anything, asked once: its own client asks six times in 20 seconds, and warns each time."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        get_hf_file_metadata(hf_hub_url(name, file, revision=revision))
    except (HfHubHTTPError, HFValidationError):
        pass  # told by who downloads
    except Exception:  # no network, each of the client's HTTP libraries in its own words; or the offline mode
        return False
    return True


def _family_of(index: dict[str, Any], config: ReadConfig, name: str) -> Family:
    refuse_index(index, name)
    for family_name in FAMILIES:
        family: Family = FAMILIES.load(family_name)
        if family.recognises(index, config):
            return family
    raise ModelError(f"{name} is a {index.get('_class_name') or 'model of no known kind'}. {supported()}")


def _check_parts(index: dict[str, Any], family: Family, name: str) -> None:
    for part in family.parts:
        entry = index.get(part)
        if not isinstance(entry, list) or not entry or entry[0] is None:
            raise ModelError(
                f"{name} has no {part.replace('_', ' ')} (its model_index.json lists none); "
                "a complete text-to-image model is needed."
            )


def _unet_files(source: str, name: str, revision: str | None) -> list[str]:
    """Names of the files in a model's folder ``unet``."""
    if not Path(source).is_dir():
        return _files_on_hub(name, "unet", revision)
    unet = Path(source) / "unet"
    if not unet.is_dir():
        raise ModelError(f"{name} has no folder unet; it is incomplete.")
    return [path.name for path in unet.iterdir()]


def _files_on_hub(name: str, folder: str, revision: str | None) -> list[str]:
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HfHubHTTPError

    try:
        files = list_repo_files(name, revision=revision)
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"The hub does not say which files {name} has: {first_line(error)} Try again.") from None
    return [file.removeprefix(f"{folder}/") for file in files if file.startswith(f"{folder}/")]


def _find_variant(files: Sequence[str], name: str, allow_pickle: bool) -> str | None:
    """The plain files if the UNet has them, else the only variant there is."""
    weights = sorted(file for file in files if fnmatch(file, "diffusion_pytorch_model*.safetensors"))
    stems = [file.removeprefix("diffusion_pytorch_model") for file in weights]
    if any(stem == ".safetensors" or stem.startswith("-") for stem in stems):
        return None
    variants = sorted({stem.removeprefix(".").split(".")[0].split("-")[0] for stem in stems})
    if variants:
        return "fp16" if "fp16" in variants else variants[0]
    if any(file.endswith(".bin") for file in files) and not allow_pickle:
        raise ModelError(
            f"{name} only has .bin weights. They are pickles, which can run any code; convert them to safetensors, "
            "or pass --allow_pickle if you trust where they come from."
        )
    if allow_pickle:
        return None
    raise ModelError(f"{name} has no UNet weights: unet/ holds no .safetensors file.")
