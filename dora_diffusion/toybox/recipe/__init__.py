"""The recipe of the embedded base, from seeds to weights, one stage a file.

A stage is a function ``(settings, work_dir, from_dir, device, minutes, log)``. It writes into ``work_dir``, goes on
from what it wrote there before, and reads the stage before it from ``from_dir``. Its settings' class is the annotation
of its first argument, and has a ``smoke()`` that makes everything happen once, in seconds, on a CPU.
"""

from dora_diffusion.registry import Registry

STAGES = Registry(
    "stage",
    {
        "autoencoder": "dora_diffusion.toybox.recipe.autoencoder_stage:train_autoencoder",
        "diffusion": "dora_diffusion.toybox.recipe.diffusion_stage:train_diffusion",
        "eye": "dora_diffusion.toybox.recipe.eye_stage:train_eye",
        "pack": "dora_diffusion.toybox.recipe.pack:pack",
    },
)
