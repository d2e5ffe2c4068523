"""How much the previews of a training on toybox show the subject, measured while it trains.

The same likeness as ``evaluation.likeness``, read against points that are there anyway: the floor is the class images
that the base drew for the prior term, the ceiling the photos among themselves.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import DataError
from dora_diffusion.machine import home

if TYPE_CHECKING:
    from torch import Tensor

BASE = "toybox"
SIDE = 128  # what toybox draws, and the eye looks at


class PreviewEye:
    """Writes ``likeness.jsonl``: a line a previewed step, with the mean and each picture's likeness.

    Args:
        file: where to; what it says of steps after ``step`` is forgotten, as they will be done again.

    Raises:
        DataError: no likeness can be given: another base, a class that the eye does not know, one photo alone, no
            class images, or a floor that is as high as the ceiling.
    """

    def __init__(self, config: TrainConfig, file: Path, step: int):
        from dora_diffusion.toybox.words import CLASSES

        noun = config.data.class_noun or ""
        if config.model.pretrained_model_name_or_path != BASE or noun not in CLASSES:
            raise DataError("The eye knows the classes of toybox, and no others.")
        self._kind = CLASSES.index(noun)
        self._file = file
        self._measure(config)
        _forget_after(file, step)

    def look(self, step: int, paths: Sequence[Path]) -> None:
        """Note the likeness of a step's previews."""
        from dora_diffusion.evaluation.eye_facts import gate_of
        from dora_diffusion.evaluation.likeness import class_probability, normalised, photo_cosines

        seen = self._eye.see(_pictures(paths))
        accepted = class_probability(seen.class_logits, self._kind) >= gate_of()
        cosines = photo_cosines(seen.embedding, self._photos)
        values = normalised(cosines, accepted, self._floor, self._ceiling)
        pictures = {path.name: round(value, 4) for path, value in zip(paths, values.tolist(), strict=True)}
        entry = {"step": step, "likeness": round(values.mean().item(), 4), "pictures": pictures}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _measure(self, config: TrainConfig) -> None:
        """The two points that a likeness is read against."""
        import torch

        from dora_diffusion.data.photos import list_photos
        from dora_diffusion.evaluation.likeness import check_range, leave_one_out, photo_cosines
        from dora_diffusion.toybox.eye import load_eye

        folder = config.data.instance_data_dir
        photos = list_photos(folder) if folder is not None else []
        drawn = class_pictures(config)
        if not drawn:
            raise DataError("There are no class images, which are what likeness 0 means.")
        with torch.random.fork_rng(devices=[]):  # a fresh network draws its weights: the run must not notice
            self._eye = load_eye()
        self._photos = self._eye.see(_pictures(photos)).embedding
        self._ceiling = leave_one_out(self._photos).double().mean()
        self._floor = photo_cosines(self._eye.see(_pictures(drawn)).embedding, self._photos).mean()
        check_range(self._floor.item(), self._ceiling.item())


def class_pictures(config: TrainConfig) -> list[Path]:
    """The class images that the run's base drew, found by the settings that they carry."""
    from dora_diffusion.inference.picture import read_settings

    prior = config.prior
    if not prior.uses_images():
        return []
    wanted: dict[str, Any] = {
        "prompt": config.class_prompt(),
        "model": config.model.pretrained_model_name_or_path,
        "num_inference_steps": prior.class_images_steps,
        "guidance_scale": prior.class_images_guidance,
        "width": config.data.resolution or SIDE,
    }
    for folder in sorted((home() / "class_images").glob("generated-*")):
        pictures = sorted(folder.glob("[0-9]*.png"))[: prior.num_class_images]
        try:
            settings = read_settings(pictures[0]) if pictures else {}
        except DataError:
            continue
        if all(settings.get(name) == value for name, value in wanted.items()):
            return pictures
    return []


def _pictures(paths: Sequence[Path]) -> "Tensor":
    from dora_diffusion.evaluation.evaluate import photo_tensor

    return photo_tensor(paths, SIDE)


def _forget_after(file: Path, step: int) -> None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    file.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step), encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a line; a line cut off by a crash counts as after everything."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
