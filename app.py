"""The studio in a browser: ``python app.py [--host 127.0.0.1] [--port 7860]``."""

import sys

from dora_diffusion.cli.app import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
