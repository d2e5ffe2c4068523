"""The studio with the real workshop and a trainer that only pretends: python serve_half.py SECONDS_A_STEP --port N."""

import sys
from pathlib import Path

from dora_diffusion import machine
from dora_diffusion.config import AppConfig
from dora_diffusion.studio.studio import Studio
from dora_diffusion.studio.ui.launch import serve

FAKE_TRAINER = Path(__file__).parents[1] / "studio" / "fake_trainer.py"

if __name__ == "__main__":
    pause_s, port = sys.argv[1], int(sys.argv[3])
    studio = Studio(machine.home(), [sys.executable, str(FAKE_TRAINER), "ok", pause_s])
    serve(studio, AppConfig(port=port, browser=False), None, lambda address: print(address, flush=True))
