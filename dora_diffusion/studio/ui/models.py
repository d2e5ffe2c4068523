"""The base model of a subject: chosen from those that were added, or added by folder, file or hub name."""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.errors import DoraError
from dora_diffusion.studio.ui.shared import PROMPT, WORK, Shared

if TYPE_CHECKING:
    from dora_diffusion.studio.bases import Base
    from dora_diffusion.studio.studio import Studio


def build_models(studio: "Studio", shared: Shared, base: gr.Dropdown) -> None:
    """The part that adds models to the choices of ``base``."""
    note = gr.HTML(elem_id="teach-base-note")
    with gr.Accordion("Add a model", open=False, elem_id="teach-add"):
        name = gr.Textbox(
            elem_id="teach-add-name",
            label="Folder, file or hub name",
            placeholder="/models/my-sd15, /models/sdxl.safetensors, or owner/name",
            info="A model in diffusers' layout, or one .safetensors checkpoint.",
            max_lines=1,
        )
        download = gr.Checkbox(
            elem_id="teach-add-download",
            label="Download it if it is not on this computer",
            info="The only thing here that goes online, and only when you press Add.",
        )
        with gr.Row():
            check = gr.Button("Check", elem_id="teach-add-check", min_width=100)
            add = gr.Button("Add", elem_id="teach-add-add", variant="primary", min_width=100)
        found = gr.HTML(elem_id="teach-add-found")

    def check_it(text: str) -> str:
        result = studio.bases.check(text.strip())
        return verdict(result.ok, result.words)

    def add_it(text: str, may_download: bool) -> Any:
        try:
            made = studio.bases.add(text.strip(), download=bool(may_download))
        except DoraError as error:  # said where the eye is, not in a corner
            return verdict(False, str(error)), gr.skip()
        return verdict(True, f"Added {made.label}."), gr.Dropdown(choices=choices(studio.bases.list()), value=made.name)

    def look(chosen: str) -> tuple[Any, str]:
        known = studio.bases.list()
        return gr.Dropdown(choices=choices(known)), note_html(known, chosen)

    shared.on_tick(look, [base], [base, note])
    gr.on([check.click, name.submit], shared.plain(check_it), name, found, **PROMPT)
    shared.then_tick(add.click(shared.plain(add_it), [name, download], [found, base], show_progress_on=found, **WORK))


def choices(known: "list[Base]") -> list[tuple[str, str]]:
    """What the dropdown offers."""
    return [(base.label + (" (missing)" if base.is_missing else ""), base.name) for base in known]


def note_html(known: "list[Base]", chosen: str) -> str:
    """What is to be said of the chosen model."""
    base = next((base for base in known if base.name == chosen), None)
    if base is None:
        return ""
    if base.is_missing:
        return (
            f'<p class="note" data-missing="true">✗ {escape(base.label)} is not where it was: {escape(base.name)}. '
            "Put it back, or choose another one.</p>"
        )
    return f'<p class="quiet">{escape(base.note)}</p>' if base.note else ""


def verdict(ok: bool, words: str) -> str:
    """The answer of a check."""
    sign = "✓" if ok else "✗"
    return f'<p class="verdict" role="status" data-ok="{str(ok).lower()}">{sign} {escape(words)}</p>'
