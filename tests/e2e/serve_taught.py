"""A studio that has taught a teapot, with a trainer and a workshop that only pretend.

python serve_taught.py SECONDS_A_SAMPLING_STEP --port N
"""

import sys
from pathlib import Path

from dora_diffusion import machine
from dora_diffusion.config import AppConfig
from dora_diffusion.studio.studio import Studio
from dora_diffusion.studio.ui.launch import serve

STUDIO_TESTS = Path(__file__).parents[1] / "studio"
SAMPLES = Path(__file__).parents[2] / "samples" / "subjects"
sys.path.insert(0, str(STUDIO_TESTS))

from shop import fake_workshop  # noqa: E402 - from the folder above

if __name__ == "__main__":
    pause_s, port = float(sys.argv[1]), int(sys.argv[3])
    home = machine.home()
    trainer = [sys.executable, str(STUDIO_TESTS / "fake_trainer.py"), "ok", "0.001"]
    studio = Studio(home, trainer, fake_workshop(home, pause_s))
    if not studio.subjects.list():
        teapot = studio.subjects.create(sorted((SAMPLES / "teapot").glob("*.jpg")), "Rex", "teapot")
        studio.jobs.enqueue(teapot.id, "quick")
    serve(studio, AppConfig(port=port, browser=False), None, lambda address: print(address, flush=True))
