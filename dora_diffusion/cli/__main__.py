"""``python -m dora_diffusion.cli``."""

import sys

from dora_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
