"""Our own pieces of HTML: escaped words, pictures of the media folder, and buttons that tell what they want done."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

import gradio as gr

# A press on any <button data-do="…"> inside is a click of the whole, with the button's data- attributes beside it.
# Where what is then shown has not got that button any more, the focus goes to its neighbour, or to where it goes on.
_TELL_WHICH = """
const alike = (button) => [...element.querySelectorAll(`button[data-do="${button.dataset.do}"]`)];
let pressed = null, place = 0;
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]');
  if (!button || button.disabled || !element.contains(button)) return;
  pressed = button;
  place = alike(button).indexOf(button);
  trigger('click', {...button.dataset});
});
new MutationObserver(() => {
  if (!pressed || pressed.isConnected) return;
  const left = alike(pressed), next = left[Math.min(place, left.length - 1)] || document.querySelector(%s);
  pressed = null;
  if (next && document.activeElement === document.body) next.focus();
}).observe(element, {childList: true, subtree: true});
"""


def panel(value: str = "", elem_id: str = "", then: str = "none") -> gr.HTML:
    """A piece of HTML whose buttons (made by ``button``) can be pressed: ``panel.click(handler, …)`` with
    ``def handler(…, event: gr.EventData)`` and ``asked(event)``. A new value is merged into what is shown, so the focus
    stays; ``<details>`` would close, so use a gr.Accordion around it.

    Args:
        then: CSS of what gets the focus when the pressed button is gone and no other one like it is left.
    """
    return gr.HTML(value, elem_id=elem_id, js_on_load=_TELL_WHICH % json.dumps(then))


def asked(event: gr.EventData) -> dict[str, str]:
    """What the pressed button said: "do", and its other data. It comes from the browser: check it."""
    data = event._data if isinstance(event._data, Mapping) else {}
    return {str(name): str(value) for name, value in data.items()}


def button(label: str, do: str, kind: str = "", hint: str = "", **data: str) -> str:
    """HTML of a button that wants ``do`` done; ``kind``: "" | "primary" | "stop" | "link"; ``hint`` says more to
    those who do not see where it stands. Words that are seen come first in what is heard ("Resume: go on with this
    training"), so that a user can say what he reads; a sign has no words ("✕": "Remove photo 3").
    """
    if hint and any(map(str.isalpha, label)) and not hint.lower().startswith(label.lower()):
        hint = f"{label}: {hint[0].lower()}{hint[1:]}"
    said = {"type": "button", "class": f"act {kind}".strip(), "data-do": do}
    said |= {f"data-{name}": value for name, value in data.items()}
    said |= {"aria-label": hint, "title": hint} if hint else {}
    written = " ".join(f'{name}="{escape(value)}"' for name, value in said.items())
    return f"<button {written}>{escape(label)}</button>"


def link_to(path: Path) -> str:
    """The address of a file in the media folder; a file that is written again has another one."""
    try:
        version = f"?v={path.stat().st_mtime_ns:x}"
    except OSError:
        version = ""
    return f"gradio_api/file={quote(str(path))}{version}"


def whole(said: str | None) -> int | None:
    """The whole number that a button of ours says; None for what no button says."""
    if said is None or not said.isascii() or not said.isdigit() or len(said) > 12:
        return None
    return int(said)


def likeness_words(likeness: float) -> str:
    """A likeness as people read it: "71%", and never more than all of it, though a picture may lie nearer to the photos
    than they lie to each other.
    """
    return f"{min(1.0, likeness):.0%}"


def picture(path: Path, alt: str) -> str:
    """HTML of a picture in the media folder."""
    return f'<img src="{escape(link_to(path))}" alt="{escape(alt)}" loading="lazy">'
