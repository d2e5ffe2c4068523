"""Plan: the first two steps of a training, measured; nothing of it is kept."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import TrainingError
from dora_diffusion.studio.tasks.desk import Desk
from dora_diffusion.training import train
from dora_diffusion.training.events import Event, StepDone

PHOTOS = 4


def plan(desk: Desk, *, config: Mapping[str, Any]) -> dict[str, Any]:
    """{"step_s", "loading_s", "peak_gib", "total_gib", "device"} of a training with these settings.

    Photos that are not there yet are stood in for by plain ones: steps take as long with any.
    """
    desk.let_go()
    began = time.perf_counter()
    with TemporaryDirectory(prefix="dora-plan-") as folder, _photos(config, Path(folder)) as data:
        run = {**config.get("run", {}), "output_dir": Path(folder) / "run", "plan_only": True, "push_to_hub": False}
        wanted = TrainConfig.model_validate({**config, "data": data, "run": run})

        def listen(event: Event) -> None:
            if isinstance(event, StepDone):
                desk.check_stop()

        result = train(wanted, listen, desk.is_stopped)
    desk.check_stop()
    if result.plan is None:
        raise TrainingError("The two steps could not be measured.")
    planned = result.plan
    step_s = planned.seconds / max(1, wanted.run.max_train_steps)
    return {
        "step_s": step_s,
        "loading_s": max(0.0, time.perf_counter() - began - 2 * step_s),
        "peak_gib": planned.peak_gib,
        "total_gib": planned.total_gib,
        "device": planned.device,
    }


@contextmanager
def _photos(config: Mapping[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """The settings of the data, pointed at photos that are there."""
    data = dict(config.get("data", {}))
    given = data.get("instance_data_dir")
    if not given or not any(Path(given).glob("*")):
        photos = folder / "photos"
        photos.mkdir()
        side = max(64, int(data.get("resolution") or 512))
        for number in range(PHOTOS):
            picture = Image.effect_noise((side, side), 40 + number).convert("RGB")
            picture.save(photos / f"{number:02d}.jpg", quality=90)
        data = {**data, "instance_data_dir": str(photos), "class_noun": data.get("class_noun") or "thing"}
        for name in ("mask_data_dir", "unmasked_weight", "use_alpha_mask", "caption_column"):
            data.pop(name, None)
    yield data
