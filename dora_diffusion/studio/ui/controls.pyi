"""A list to choose from whose entries come and go."""

from typing import Any

import gradio as gr

from gradio.events import Dependency

class Choice(gr.Dropdown):
    """A dropdown that hands on whatever was chosen.

    Gradio's own refuses a value that is not among the choices it remembers, in its words, and before our handlers can
    say in ours what became of it: a subject was deleted, or the studio started anew and remembers no page's choices.
    So every handler checks the value, as all that a browser sends.
    """

    is_template = True  # a browser knows it as a Dropdown

    def preprocess(self, payload: Any) -> str | None:
        return payload if isinstance(payload, str) else None
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component