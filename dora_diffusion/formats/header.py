"""What stands in a file's header besides the tensors: ours, kohya's ``ss_*`` and Stability's ``modelspec.*``.

``ss_*`` and ``sshs_*`` are what sd-scripts' trainers write (library/train_util.py, networks/lora.py); A1111 and Forge
tell SD 1.x, 2.x and XL apart by them. ``modelspec.*`` is https://github.com/Stability-AI/ModelSpec, version 1.0.1. All
values are text. No date is written: the same adapter is the same file.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from dora_diffusion.adapters import AdapterState, Fingerprint
from dora_diffusion.errors import FormatError

PREFIX = "dora_diffusion."
_OWN = ("new_tokens", "kind", "base_name", "fingerprint", "layout", "dora_norm")
_ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sd2_v": "stable-diffusion-v2-768-v",
    "sdxl": "stable-diffusion-xl-v1-base",
}
_VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sd2_v": "sd_v2_v", "sdxl": "sdxl_base_v1-0"}


def own_header(state: AdapterState) -> dict[str, str]:
    """Everything of ``state`` that is no tensor."""
    word = (
        {}
        if state.word is None
        else {f"{PREFIX}trigger": state.word.trigger, f"{PREFIX}new_tokens": str(state.word.count)}
    )
    return (
        {f"{PREFIX}{key}": value for key, value in state.metadata.items()}
        | word
        | {
            f"{PREFIX}kind": state.kind,
            f"{PREFIX}base_name": state.base_name,
            f"{PREFIX}fingerprint": json.dumps(state.fingerprint, separators=(",", ":")),
        }
    )


def read_own(path: Path, header: Mapping[str, str]) -> tuple[str, Fingerprint, dict[str, str]]:
    """(base name, fingerprint, metadata) of a file of ours; of another tool's what it says in its own words.

    Raises:
        FormatError: the fingerprint is damaged.
    """
    own = {key.removeprefix(PREFIX): value for key, value in header.items() if key.startswith(PREFIX)}
    fingerprint = _read_fingerprint(path, own.get("fingerprint", "{}"))
    metadata = {key: value for key, value in own.items() if key not in _OWN}
    if not own and (trigger := header.get("modelspec.trigger_phrase")):
        metadata["trigger"] = trigger
    base_name = own.get("base_name", header.get("ss_sd_model_name", ""))
    return ("" if base_name == "None" else base_name), fingerprint, metadata


def _read_fingerprint(path: Path, text: str) -> Fingerprint:
    try:
        return {name: [float(norm) for norm in norms] for name, norms in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} holds a fingerprint of its base that cannot be read: {error}.") from None


def network_header(state: AdapterState, path: Path, family: str) -> dict[str, str]:
    """``ss_*``: what the network is, in sd-scripts' words."""
    predicts_v = state.metadata.get("prediction_type") == "v_prediction"
    version = _VERSIONS[_variety(family, state)]
    module = "lycoris.kohya" if state.kind == "dora" else "networks.lora"
    arguments = {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"} if state.kind == "dora" else {}
    header = {
        "ss_v2": str(family == "sd2"),
        "ss_v_parameterization": str(predicts_v),
        "ss_base_model_version": version,
        "ss_sd_model_name": Path(state.base_name).name or "None",
        "ss_output_name": path.stem,
        "ss_network_module": module,
        "ss_network_dim": _one_or_dynamic({layer.rank for layer in state.layers.values()}),
        "ss_network_alpha": _one_or_dynamic({layer.scale * layer.rank for layer in state.layers.values()}),
        "ss_network_args": json.dumps(arguments),
    }
    if trigger := state.metadata.get("trigger"):
        # The one place where A1111 looks for words to offer.
        header["ss_tag_frequency"] = json.dumps({path.stem: {trigger: 1}})
    if resolution := state.metadata.get("resolution"):
        header["ss_resolution"] = f"({resolution}, {resolution})"
    if step := state.metadata.get("step"):
        header["ss_steps"] = step
    return header


def modelspec_header(state: AdapterState, path: Path, family: str, implementation: str) -> dict[str, str]:
    """``modelspec.*``.

    Args:
        implementation: whose layer names the file has: "diffusers" or the address of Stability's code.
    """
    header = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{_ARCHITECTURES[_variety(family, state)]}/lora",
        "modelspec.implementation": implementation,
        "modelspec.title": path.stem,
    }
    predicts = {"epsilon": "epsilon", "v_prediction": "v"}.get(state.metadata.get("prediction_type", ""))
    if predicts:
        header["modelspec.prediction_type"] = predicts
    if resolution := state.metadata.get("resolution"):
        header["modelspec.resolution"] = f"{resolution}x{resolution}"
    if trigger := state.metadata.get("trigger"):
        header["modelspec.trigger_phrase"] = trigger
    if prompt := state.metadata.get("instance_prompt"):
        header["modelspec.usage_hint"] = prompt
    return header


def _variety(family: str, state: AdapterState) -> str:
    return "sd2_v" if family == "sd2" and state.metadata.get("prediction_type") == "v_prediction" else family


def _one_or_dynamic(values: set[float]) -> str:
    """sd-scripts' word for ranks or alphas that differ is "Dynamic"."""
    return f"{next(iter(values)):g}" if len(values) == 1 else "Dynamic"


def hashes(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, str]:
    """``sshs_*`` and modelspec's hash: of the tensors as they lie in the file.

    ``sshs_model_hash`` leaves the header out; the older one takes 64 KiB from the first MiB on, of a file whose header
    holds nothing but ``ss_*`` (sd-scripts' ``precalculate_safetensors_hashes``).
    """
    content = save(
        {name: tensor.contiguous() for name, tensor in sorted(tensors.items())},
        {key: value for key, value in header.items() if key.startswith("ss_")},
    )
    start = 8 + int.from_bytes(content[:8], "little")
    whole = hashlib.sha256(memoryview(content)[start:]).hexdigest()
    legacy = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    return {"sshs_model_hash": whole, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": f"0x{whole}"}


def stated_alpha(header: Mapping[str, str]) -> tuple[float, float] | None:
    """(rank, alpha) that ``ss_network_dim`` and ``ss_network_alpha`` state for all layers; None where they do not."""
    numbers = [header.get(key, "") for key in ("ss_network_dim", "ss_network_alpha")]
    if not all(re.fullmatch(r"\d+(\.\d+)?", number) for number in numbers):
        return None
    rank, alpha = (float(number) for number in numbers)
    return rank, alpha
