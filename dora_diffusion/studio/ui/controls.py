"""A list to choose from whose entries come and go."""

from typing import Any

import gradio as gr


def choice(entries: list[tuple[str, str]], **settings: Any) -> gr.Dropdown:
    """A dropdown that hands on whatever was chosen.

    Without custom values Gradio refuses what is not among the choices it remembers, in its own words, and before our
    handlers can say what became of it: a subject was deleted, or the studio started anew and remembers no page's
    choices. So every handler checks the value, as all that a browser sends.
    """
    return gr.Dropdown(entries, allow_custom_value=True, **settings)
