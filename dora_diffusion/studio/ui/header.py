"""Above all tabs: what this is, and what runs."""

from typing import TYPE_CHECKING

import gradio as gr

from dora_diffusion.studio.ui.shared import Shared

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


def build_header(studio: "Studio", shared: Shared) -> None:
    """Title, privacy line and job strip."""
    gr.HTML("<h1>DoRA Studio</h1><p>Nothing leaves this computer.</p>", elem_id="title")
