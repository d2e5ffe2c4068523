"""Teach a base model one subject from a few photos.

    accelerate launch scripts/train_dreambooth_dora.py --instance_data_dir photos --class_noun dog --output_dir run

The same as ``dora-diffusion train``; every flag: ``python scripts/train_dreambooth_dora.py --help``.
"""

import sys

from dora_diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
