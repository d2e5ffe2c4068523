"""Teach: photos, what it is, how well; then Train, and what comes of it."""

from typing import TYPE_CHECKING

import gradio as gr

from dora_diffusion.studio.ui.shared import Shared

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


class Teach:
    """The first tab."""

    label = "Teach"

    def build(self, studio: "Studio", shared: Shared) -> None:
        gr.Markdown("## Teach", elem_id="teach-title")


TEACH = Teach()
