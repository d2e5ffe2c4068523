"""``dora-diffusion verify FILE --against RUN [--reader R] [--picture] [--json]``."""

import json
import math
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_diffusion.cli.parse import parse, take_file
from dora_diffusion.config import VerifyConfig
from dora_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from dora_diffusion.adapters import AdapterState
    from dora_diffusion.formats.verify import AdapterFile

_USAGE = "dora-diffusion verify FILE --against RUN"


def run(arguments: list[str]) -> int:
    """Print what each reader makes of a file. Returns 2 if none of those asked reads it right, else 0."""
    path, flags = take_file(VerifyConfig, arguments)
    config = parse(VerifyConfig, flags, "verify", takes="FILE")
    if path is None:
        raise ConfigError(f"Which file? {_USAGE}.")
    if config.against is None:
        raise ConfigError(f"Against what? Give the run it was made from: {_USAGE}.")
    if config.picture and config.reader is None:
        raise ConfigError("A pair of pictures is one reader's: name it with --reader.")
    from dora_diffusion.formats import load_adapter
    from dora_diffusion.formats.base_weights import BaseByName
    from dora_diffusion.formats.verify import as_json, open_file, table, verify_against

    file, state = open_file(Path(path)), load_adapter(config.against)
    base = BaseByName(config.pretrained_model_name_or_path or state.base_name)
    found = verify_against(file, state, base, [config.reader] if config.reader else [])
    picture = _picture(config, file, state) if config.picture else None
    if config.as_json:
        document = {"file": path, "against": str(config.against), "readers": [as_json(one) for one in found]}
        print(json.dumps(document | ({"picture": picture} if picture else {}), indent=2))
    else:
        print(table(found))
        if any(not one.is_right for one in found):
            print("Every layer and every key: --json.")
        if residual := file.header.get("dora_diffusion.svd_residual"):
            print(f"The file is a plain LoRA found by SVD, which left out {float(residual):.1%} of the change.")
        if picture:
            value = "equal" if picture["psnr"] is None else f"{picture['psnr']:.1f} dB"
            print(f"picture: {value}, ours on the left: {picture['file']}")
    return 0 if any(one.is_right for one in found) else 2


def _picture(config: VerifyConfig, file: "AdapterFile", state: "AdapterState") -> dict[str, Any]:
    """Draw the pair, write it, and tell how near it is; a PSNR of None is of equal pictures."""
    from dora_diffusion.evaluation.picture_proof import picture_pair
    from dora_diffusion.inference import Drawing, place
    from dora_diffusion.inference.generate import load_for
    from dora_diffusion.inference.picture import save_picture
    from dora_diffusion.machine import check_writable
    from dora_diffusion.registry import READERS

    prompt = config.prompt or state.metadata.get("instance_prompt") or "a photo"
    check_writable(config.output_dir, 0)
    device, dtype = place(config.cpu, "fp32")
    base = load_for(config.pretrained_model_name_or_path, state, dtype).to(device)
    how = Drawing(num_inference_steps=config.num_inference_steps)
    pair = picture_pair(base, state, file, READERS.load(str(config.reader)), prompt, config.seed, how)
    told = None if math.isinf(pair.psnr) else round(pair.psnr, 2)
    settings = {"prompt": prompt, "seed": config.seed, "reader": config.reader, "psnr": told}
    target = save_picture(pair.side_by_side(), _free(config.output_dir, f"verify_{config.reader}"), settings)
    return {"psnr": told, "file": str(target)}


def _free(folder: Path, stem: str) -> Path:
    """A name for a picture that is not taken: as with ``generate``, what is there stays."""
    names = (f"{stem}.png" if number == 1 else f"{stem}_{number}.png" for number in count(1))
    return next(folder / name for name in names if not (folder / name).exists())
