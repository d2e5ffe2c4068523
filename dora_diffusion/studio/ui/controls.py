"""Controls that Gradio's own cannot be: a list whose entries come and go, a number that may be left out."""

import math
from typing import Any

import gradio as gr


def choice(entries: list[tuple[str, str]], **settings: Any) -> gr.Dropdown:
    """A dropdown that hands on whatever was chosen.

    Without custom values Gradio refuses what is not among the choices it remembers, in its own words, and before our
    handlers can say what became of it: a subject was deleted, or the studio started anew and remembers no page's
    choices. So every handler checks the value, as all that a browser sends.
    """
    return gr.Dropdown(entries, allow_custom_value=True, **settings)


def words_of(number: float | None) -> str:
    """A number that may be left out, as it stands in a field of text.

    Gradio's Number shows 0 where nothing was said, as soon as it is looked at; so these are text.
    """
    return "" if number is None else f"{number:.10g}"


def number_in(words: object) -> Any:
    """What a field of text says: a number, None where it is empty; other words as they are, for whom it concerns to
    refuse.
    """
    if not isinstance(words, str):
        return words
    if not words.strip():
        return None
    try:
        number = float(words)
    except ValueError:
        return words.strip()
    return number if math.isfinite(number) else words.strip()
