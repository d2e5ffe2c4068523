"""A packed model as a work folder again, so that its training can go on from it."""

import json
import shutil
from pathlib import Path
from typing import Any

from dora_diffusion.errors import TrainingError
from dora_diffusion.toybox.recipe.loop import STATE_FILE

INDEX_FILE = "model_index.json"
STATES_FILE = "recipe.json"  # in a packed model: the states of the stages by name

# Stage to its files and folders: where they lie in a packed model, and in the stage's folder.
PLACES = {
    "autoencoder": {"vae": "vae"},
    "diffusion": {"unet": "ema/unet", "text_encoder": "ema/text_encoder", "tokenizer": "tokenizer"},
    "eye": {
        "eye/eye.json": "eye.json",
        "eye/eye.safetensors": "eye.safetensors",
        "eye/eye_acceptance.json": "eye_acceptance.json",
        "eye/README.md": "eye_acceptance.md",
    },
}


def is_packed(folder: Path) -> bool:
    """Whether the stage "pack" wrote ``folder``: a work folder has no such file."""
    return (folder / INDEX_FILE).is_file()


def unpack(packed: Path, stage: str, folder: Path) -> None:
    """Copy what ``packed`` has of a stage into the stage's ``folder``; nothing is copied where it has nothing.

    Raises:
        TrainingError: the states that were packed with it are damaged.
    """
    for inside, outside in PLACES[stage].items():
        source, target = packed / inside, folder / outside
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    state = packed_states(packed).get(stage)
    if state is not None and folder.is_dir():
        (folder / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def packed_states(packed: Path) -> dict[str, Any]:
    """What lies behind each stage's weights, by the stage's name; empty where that was not packed.

    Raises:
        TrainingError: the file is damaged.
    """
    path = packed / STATES_FILE
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{path} is damaged ({error}). Delete it, and the seeds start from the first.") from None
