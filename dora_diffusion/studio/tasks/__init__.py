"""What the workshop's process can do, one task a file. They load models; the server never imports them.

A task is ``run(desk, **arguments) -> dict``, of what JSON can hold.
"""

from dora_diffusion.registry import Registry

TASKS = Registry(
    "task of the workshop",
    {
        "draw": "dora_diffusion.studio.tasks.drawing:draw",
        "export": "dora_diffusion.studio.tasks.exporting:export",
        "plan": "dora_diffusion.studio.tasks.planning:plan",
        "check_base": "dora_diffusion.studio.tasks.checking:check_base",
        "download_base": "dora_diffusion.studio.tasks.checking:download_base",
        "devices": "dora_diffusion.studio.tasks.checking:devices",
    },
)
