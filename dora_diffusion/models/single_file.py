"""Single-file checkpoints in the original layout: known by their tensors, described by configurations in the package.

``configs/<name>/`` holds what the hub's folders say of SD 1.5 (sd1), SD 2.1 with v-prediction (sd2-768-v), SD 2.1 base
(sd2-512) and SDXL base (sdxl), so that nothing is downloaded. One fact differs: text encoders there name the number of
CLIP's end mark (49407), where the hub's say 2 and transformers then takes the highest number of a prompt for it. It is
the same as long as no token was added.
"""

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open

from dora_diffusion.errors import ModelError
from dora_diffusion.models.base import Family, Shapes
from dora_diffusion.models.quiet import first_line, load_quietly
from dora_diffusion.models.refused import refuse_checkpoint, supported
from dora_diffusion.models.schedule import set_schedule
from dora_diffusion.registry import FAMILIES

CONFIGURATIONS = Path(__file__).parent / "configs"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def load_single_file(
    file: Path,
    name: str,
    *,
    dtype: torch.dtype,
    prediction_type: str | None,
    allow_pickle: bool,
    configurations: Path = CONFIGURATIONS,
) -> tuple[Family, Any]:
    """The family and the pipeline of a checkpoint; the autoencoder is float32, the rest is read as ``dtype``.

    Files of SDXL fine-tunes say by two empty tensors that they predict v (``v_pred``) and that their schedule was
    rescaled to zero terminal SNR (``ztsnr``); headers by Stability's model specification say what is predicted too.

    Args:
        prediction_type: what the user says it predicts.
        configurations: folder of the families' configurations.

    Raises:
        ModelError: a pickle that was not allowed, another family, or a file that is not whole.
    """
    shapes = _read_shapes(file, name, allow_pickle)
    family = _family_of(shapes, name)
    prediction_type = prediction_type or ("v_prediction" if "v_pred" in shapes else _told_prediction(file))
    configuration = configurations / family.configuration(prediction_type)
    _check_size(shapes, configuration, name, family)
    pipe = load_quietly(name, lambda: _load_whole(family, file, configuration, dtype))
    set_schedule(pipe, prediction_type, "ztsnr" in shapes)
    return family, pipe


def _check_size(shapes: Shapes, configuration: Path, name: str, family: Family) -> None:
    """Raises: ModelError: the UNet is not as wide as the family's."""
    unet = json.loads((configuration / "unet" / "config.json").read_text(encoding="utf-8"))
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight", (unet["block_out_channels"][0],))
    if first[0] != unet["block_out_channels"][0]:
        raise of_another_size(name, family, f"{first[0]} channels instead of {unet['block_out_channels'][0]}")


def of_another_size(name: str, family: Family, why: str) -> ModelError:
    """The refusal of a checkpoint that is none of the published models, for whoever reads one."""
    return ModelError(
        f"{name} has the names of {family.name} and is of another size than the published models ({why}): one file "
        "does not say how such a model is made. Use its folder in diffusers' layout."
    )


def family_of_file(file: Path, name: str, allow_pickle: bool = False) -> Family:
    """The family of a checkpoint, from the names and shapes of its tensors.

    Raises:
        ModelError: a pickle that was not allowed, another family, or a file that is not whole.
    """
    return _family_of(_read_shapes(file, name, allow_pickle), name)


def _read_shapes(file: Path, name: str, allow_pickle: bool) -> Shapes:
    pickle = file.suffix.lower() in PICKLES
    if pickle and not allow_pickle:
        raise ModelError(
            f"{name} is a pickle ({file.suffix}), which can run any code. Give the .safetensors file of the model, or "
            "pass --allow_pickle if you trust where it comes from."
        )
    if not pickle and file.suffix.lower() != ".safetensors":
        raise ModelError(
            f"{name} is no checkpoint: a single file must be .safetensors, got {file.suffix or 'no ending'}."
        )
    try:
        return _shapes_of_pickle(file) if pickle else _shapes_of_safetensors(file)
    except UnpicklingError:
        raise ModelError(
            f"{name} is damaged, or holds objects besides tensors. Even with --allow_pickle only tensors are read from "
            "a single file; take the model's .safetensors file."
        ) from None
    except Exception as error:  # a broken pickle fails in any way it likes
        why = first_line(error).removeprefix("Error while deserializing header: ")
        raise ModelError(
            f"{name} is no whole checkpoint file ({why}); it is of another kind, or was cut off as it was "
            "written or downloaded."
        ) from None


def _shapes_of_safetensors(file: Path) -> Shapes:
    with safe_open(file, framework="pt", device="cpu") as tensors:
        return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118


def _told_prediction(file: Path) -> str | None:
    """``modelspec.prediction_type`` of a safetensors header: the only mark that files of SD 2.x can have."""
    if file.suffix.lower() in PICKLES:
        return None
    with safe_open(file, framework="pt", device="cpu") as tensors:
        told = (tensors.metadata() or {}).get("modelspec.prediction_type", "")
    return {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}.get(told)


def _shapes_of_pickle(file: Path) -> Shapes:
    content = torch.load(file, map_location="meta", weights_only=True)
    while "state_dict" in content:
        content = content["state_dict"]
    return {key: tuple(value.shape) for key, value in content.items() if isinstance(value, torch.Tensor)}


def _family_of(shapes: Shapes, name: str) -> Family:
    refuse_checkpoint(shapes, name)
    for family_name in FAMILIES:
        family: Family = FAMILIES.load(family_name)
        if family.recognises_checkpoint(shapes):
            return family
    raise ModelError(
        f"{name} holds a UNet and no text encoder that is known (cond_stage_model.* or conditioner.embedders.*); a "
        f"complete text-to-image model is needed. {supported()}"
    )


def _load_whole(family: Family, file: Path, configuration: Path, dtype: torch.dtype) -> Any:
    """diffusers leaves a tensor that the file lacks on the meta device: of a UNet that fails by itself, in words that
    help nobody; of a text encoder it does not.
    """
    lacks = f"it lacks tensors that a whole {family.name} checkpoint has"
    try:
        pipe = family.load_checkpoint(file, configuration, dtype=dtype)
    except NotImplementedError:
        raise ValueError(f"{lacks}.") from None
    for part, model in family.adaptable(pipe).items():
        missing = [name for name, tensor in model.named_parameters() if tensor.is_meta]
        if missing:
            raise ValueError(f"{lacks}, first {missing[0]} of its {part.replace('_', ' ')}.")
    return pipe
