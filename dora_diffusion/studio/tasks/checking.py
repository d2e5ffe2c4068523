"""Check: can this folder, file or hub name be a base, is it whole, and which family and size is it?"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dora_diffusion.errors import DoraError, ModelError
from dora_diffusion.formats.base_files import is_here
from dora_diffusion.machine import devices as devices_here
from dora_diffusion.models.load import family_of
from dora_diffusion.models.quiet import first_line
from dora_diffusion.models.single_file import CONFIGURATIONS
from dora_diffusion.studio.tasks.desk import Desk

_WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
# "model.fp16.safetensors", "model.fp16-00001-of-00002.safetensors", "model.safetensors.index.fp16.json"
_VARIANT = re.compile(r"\.(fp16|bf16|non_ema|ema)(-\d+-of-\d+)?\.")
_UNFLAGGED = " Give the .safetensors weights of this model instead: files of that kind cannot run anything."


def check_base(desk: Desk, *, name: str) -> dict[str, Any]:
    """{"family", "size", "note"} of a base that is here.

    Raises:
        ModelError: it is not, is not whole, or is of a kind that cannot be trained here.
    """
    try:
        return _checked(desk, name)
    except DoraError as error:
        raise ModelError(_for_a_page(str(error))) from None


def download_base(desk: Desk, *, name: str) -> dict[str, Any]:
    """The same of a hub name, which is downloaded: what is read of it, and no pickles."""
    from huggingface_hub import list_repo_files, snapshot_download

    family = family_of(name)  # before gigabytes are
    desk.tell("note", text=f"Downloading {name}.")
    try:
        snapshot_download(name, allow_patterns=wanted_files(list_repo_files(name), family.parts))
    except Exception as error:  # the hub's client and its HTTP library fail each in their own words
        raise ModelError(f"{name} could not be downloaded: {first_line(error)} Try again; what came is kept.") from None
    return check_base(desk, name=name)


def wanted_files(files: Iterable[str], parts: Iterable[str]) -> list[str]:
    """Of a repository's files those that are read: every part's settings, and its weights once.

    A repository has the same weights in several forms; the plain safetensors are taken, else those of fp16.
    """
    folders = {*parts, "scheduler", "tokenizer", "tokenizer_2"} - {"safety_checker", "feature_extractor"}
    inside = [file for file in files if file.partition("/")[0] in folders and file.count("/") == 1]
    weights = [file for file in inside if ".safetensors" in file]
    others = [file for file in inside if file.endswith((".json", ".txt")) and ".safetensors" not in file]
    plain = [file for file in weights if not _VARIANT.search(file)]
    have = {file.partition("/")[0] for file in plain}
    half = [file for file in weights if ".fp16" in file and file.partition("/")[0] not in have]
    return ["model_index.json", *sorted(others), *sorted(plain), *sorted(half)]


def devices(desk: Desk) -> dict[str, Any]:
    """What this machine computes on: {"devices": [{"place", "kind", "name", "total_gib", "free_gib"}]}."""
    found = [
        {"place": d.place, "kind": d.kind, "name": d.name, "total_gib": d.total_gib, "free_gib": d.free_gib}
        for d in devices_here()
    ]
    return {"devices": found}


def _checked(desk: Desk, name: str) -> dict[str, Any]:
    path = Path(name)
    if path.is_absolute() and not path.exists():
        raise ModelError(f"There is nothing at {name}. Look for a typing mistake, or whether a disk is missing.")
    if not path.is_absolute() and not is_here(name):
        raise ModelError(
            f"{name} is not on this machine. If it is a folder or file, give its whole path; if it is a model on the "
            "hub, allow the download."
        )
    family = family_of(name)
    if path.is_file():
        _check_whole(path, name)
        return {"family": family.name, "size": _size(CONFIGURATIONS / family.configuration(None)), "note": ""}
    folder = path if path.is_dir() else _snapshot(name)
    index = _config(folder / "model_index.json")
    for part in family.parts:
        if not isinstance(index.get(part), list) or not index[part] or index[part][0] is None:
            raise ModelError(f"{name} is incomplete: its model_index.json lists no {part.replace('_', ' ')}.")
        if part in _WEIGHTS:
            desk.check_stop()
            _check_part(folder / part, name)
    return {"family": family.name, "size": _size(folder), "note": ""}


def _check_part(folder: Path, name: str) -> None:
    """Raises: ModelError: a part has no weights that may be read, or they were cut off."""
    if not folder.is_dir():
        raise ModelError(f"{name} is incomplete: its folder {folder.name} is missing.")
    files = list(folder.glob("*.safetensors"))
    if not files and list(folder.glob("*.bin")):
        raise ModelError(
            f"{name} only has .bin weights in {folder.name}. They are pickles, which can run any code.{_UNFLAGGED}"
        )
    if not files:
        raise ModelError(f"{name} is incomplete: {folder.name} holds no .safetensors file.")
    for index in folder.glob("*.safetensors.index.json"):
        lacking = [shard for shard in _shards(index) if not (folder / shard).is_file()]
        if lacking:
            raise ModelError(f"{name} is incomplete: {folder.name} lacks {lacking[0]}.")
    for file in files:
        _check_whole(file, name)


def _shards(index: Path) -> Iterator[str]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError):
        return
    yield from sorted({str(name) for name in names})


def _check_whole(file: Path, name: str) -> None:
    """Raises: ModelError: a file's header promises more than there is."""
    try:
        with safe_open(file, framework="pt", device="cpu") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{name} is damaged: {file.name} is not whole ({str(error).splitlines()[0][:120]}). It was probably cut "
            "off as it was downloaded or copied; get it again."
        ) from None


def _snapshot(name: str) -> Path:
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(name, "model_index.json")
    if not isinstance(index, str):
        raise ModelError(f"{name} is not in this machine's cache. Allow the download.")
    return Path(index).parent


def _size(folder: Path) -> int:
    """Side of the pictures that a model was trained on, from its parts' configurations."""
    unet, vae = (_config(folder / part / "config.json") for part in ("unet", "vae"))
    sample, blocks = unet.get("sample_size", 64), vae.get("block_out_channels", [0] * 4)
    return int(sample) * 2 ** (len(blocks) - 1)


def _config(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _for_a_page(message: str) -> str:
    """A command line's flags are no help on a page."""
    before, flag, _ = message.partition(", or pass --allow_pickle")
    if flag:
        return f"{before}. Pickles are not read in the studio."
    return message.replace(" with --pretrained_model_name_or_path", "").replace("Even with --allow_pickle only", "Only")
