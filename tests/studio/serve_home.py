"""A server without a page: python serve_home.py HOME MODE SECONDS_A_STEP; it schedules until it is ended."""

import sys
import time
from pathlib import Path

from dora_diffusion.studio.studio import Studio

if __name__ == "__main__":
    home, mode, pause = sys.argv[1:]
    studio = Studio(Path(home), [sys.executable, str(Path(__file__).with_name("fake_trainer.py")), mode, pause])
    studio.start()
    print("ready", flush=True)
    while True:
        time.sleep(3600)
