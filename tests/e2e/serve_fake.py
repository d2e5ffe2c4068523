"""The studio with a trainer and a pipeline that only pretend: python serve_fake.py MODE SECONDS_A_STEP --port N."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from dora_diffusion import machine
from dora_diffusion.studio.jobs import Studio
from dora_diffusion.studio.pictures import Pictures
from dora_diffusion.studio.ui.launch import serve

FAKE_TRAINER = Path(__file__).parents[1] / "studio" / "fake_trainer.py"


class FakePipeline:
    """Draws squares whose colour is the seed."""

    def switch(self, adapter: Path | None, strength: float = 1.0) -> None:
        pass

    def draw(self, *, prompt: str, seed: int, num_images: int, on_step: Callable[[int, int], None], **_: Any) -> list:
        if "explode" in prompt:
            raise RuntimeError("a fault with a traceback")
        for step in range(5):
            on_step(step + 1, 5)
            time.sleep(0.05)
        return [Image.new("RGB", (64, 64), (40, seed + offset, 200)) for offset in range(num_images)]


if __name__ == "__main__":
    mode, pause_s, port = sys.argv[1], sys.argv[2], int(sys.argv[4])
    studio = Studio(machine.home(), [sys.executable, str(FAKE_TRAINER), mode, pause_s])
    serve(studio, Pictures(studio.media, lambda base: FakePipeline()), "127.0.0.1", port, None, print)
