"""``app.py`` as it is, but with a Quick of 24 steps: python serve_short.py --port N."""

import runpy
from pathlib import Path

from dora_diffusion.studio.ui import actions

if __name__ == "__main__":
    actions.QUALITIES["Quick"] = 24
    runpy.run_path(str(Path(__file__).parents[2] / "app.py"), run_name="__main__")
