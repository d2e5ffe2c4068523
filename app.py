"""The studio in a browser: ``python app.py [--host 127.0.0.1] [--port 7860]``, the same as ``dora-diffusion app``."""

import sys

from dora_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
