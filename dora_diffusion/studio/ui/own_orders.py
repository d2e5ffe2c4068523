"""The orders of a page: whoever made them may stop them, and leaving the page does."""

from typing import TYPE_CHECKING

import gradio as gr

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.ui.choices import Entries
from dora_diffusion.studio.ui.line import Line

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


class OwnOrders:
    """What the handlers of tabs share whose orders wait in a line.

    Attributes:
        doing: what the tab does, in the refusal of a stop.
    """

    doing = "drawing"

    def __init__(self, studio: "Studio", line: Line, entries: Entries):
        self._studio = studio
        self._line = line
        self._entries = entries

    def stop(self, request: gr.Request) -> None:
        """Stop what this page ordered; other pages' orders go on.

        Raises:
            StudioError: it ordered nothing.
        """
        if not self._line.stop(str(request.session_hash)):
            raise StudioError(f"This page is not {self.doing} anything, so there is nothing to stop.")

    def leave(self, request: gr.Request) -> None:
        """A page was closed or loaded again: nobody waits for what it ordered. What is done already is kept."""
        self._line.stop(str(request.session_hash))
