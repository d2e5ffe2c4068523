"""The studio with a trainer and a workshop that only pretend: python serve_fake.py MODE SECONDS_A_STEP --port N."""

import sys
from pathlib import Path

from dora_diffusion import machine
from dora_diffusion.config import AppConfig
from dora_diffusion.studio.studio import Studio
from dora_diffusion.studio.ui.launch import serve

STUDIO_TESTS = Path(__file__).parents[1] / "studio"
sys.path.insert(0, str(STUDIO_TESTS))

from shop import fake_workshop  # noqa: E402 - from the folder above

if __name__ == "__main__":
    mode, pause_s, port = sys.argv[1], sys.argv[2], int(sys.argv[4])
    home = machine.home()
    trainer = [sys.executable, str(STUDIO_TESTS / "fake_trainer.py"), mode, pause_s]
    studio = Studio(home, trainer, fake_workshop(home))
    serve(studio, AppConfig(port=port, browser=False), None, lambda address: print(address, flush=True))
