"""The advanced settings on the page: controls made by ``form``, what was changed, and the command that does it."""

import json
from collections.abc import Mapping
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at
from dora_diffusion.errors import DoraError
from dora_diffusion.studio.ui import form
from dora_diffusion.studio.ui.html import asked, button
from dora_diffusion.studio.ui.html import panel as html_panel
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


def build_advanced(studio: "Studio", shared: Shared, trigger: gr.Textbox, quality: gr.Radio) -> gr.Textbox:
    """The closed accordion with every setting. Returns: the hidden textbox with the overrides, as JSON."""
    usual = TrainConfig(preset="toybox-balanced")
    overrides = gr.Textbox(visible="hidden", elem_id="teach-overrides", label="Changed settings")
    controls: list[Any] = []
    with gr.Accordion("Advanced", open=False, elem_id="teach-advanced"):
        trigger.render()
        summary = html_panel(summary_html({}, usual, ""), elem_id="teach-changed")
        for section, group in groupby(form.settings(), key=lambda setting: setting.name.partition(".")[0]):
            with gr.Accordion(form.TITLES[section], open=False, elem_id=f"group-{section}"):
                controls.extend(setting.control(value_at(usual, setting.name)) for setting in group)
        command = gr.Textbox(
            elem_id="teach-command",
            label="The same as a command",
            lines=3,
            interactive=False,
            buttons=["copy"],
        )

    def note(subject_id: str, how: str, *values: Any) -> tuple[Any, ...]:
        """What the user wrote into a control, told at once: what differs, and whether it can be."""
        names = [setting.name for setting in form.settings()]
        given = form.changed(dict(zip(names, values, strict=True)), _preset(studio, subject_id, how))
        return json.dumps(given), *told(subject_id, how, given)

    def show(subject_id: str, how: str, text: str) -> tuple[Any, ...]:
        """The controls, as preset and overrides say; for another subject or quality."""
        given, preset = read(text), _preset(studio, subject_id, how)
        values = [setting.shown(given.get(setting.name, value_at(preset, setting.name))) for setting in form.settings()]
        return *values, *told(subject_id, how, given)

    def told(subject_id: str, how: str, given: Mapping[str, Any]) -> tuple[str, str]:
        preset, fault, words = _preset(studio, subject_id, how), "", ""
        if subject_id:
            try:
                words = form.as_command(studio.jobs.config(subject_id, how, given), given)
            except DoraError as error:
                fault = str(error)
        return summary_html(given, preset, fault), words

    def reset(text: str, event: gr.EventData) -> str:
        wanted, given = asked(event), read(text)
        return json.dumps({name: given[name] for name in given if wanted.get("name") not in ("", name)})

    chosen = [shared.subject, quality]
    written = gr.on(
        [control.input for control in controls],
        shared.plain(note),
        [*chosen, *controls],
        [overrides, summary, command],
        trigger_mode="always_last",
        **QUIET,
    )
    shared.then_tick(written)
    again: dict[str, Any] = {
        "fn": shared.plain(show),
        "inputs": [*chosen, overrides],
        "outputs": [*controls, summary, command],
        **QUIET,
    }
    quality.change(**again)
    shared.subject.change(lambda: "", None, overrides, **QUIET).then(**again)
    shared.then_tick(summary.click(shared.plain(reset), overrides, overrides, **PROMPT).then(**again))
    return overrides


def read(text: str) -> dict[str, Any]:
    """The overrides in the hidden textbox, which comes from the browser; unknown names are refused by the config."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    names = {setting.name for setting in form.settings()}
    return {name: value for name, value in found.items() if name in names} if isinstance(found, dict) else {}


def summary_html(given: Mapping[str, Any], preset: TrainConfig, fault: str) -> str:
    """What was changed, each with its way back; and the marks at the controls."""
    if not given:
        return '<p class="quiet" data-changed="0">Everything is as the quality above says.</p>'
    rows = "".join(_row(setting, given[setting.name], preset) for setting in form.settings() if setting.name in given)
    wrong = f'<p class="note" role="alert">✗ {escape(fault)}</p>' if fault else ""
    count = f"{len(given)} setting{'s' if len(given) > 1 else ''} changed"
    everything = button("Reset all to the preset", "reset", name="")
    return (
        f'{wrong}<p data-changed="{len(given)}">{count}:</p><ul class="changed">{rows}</ul>{everything}'
        f"<style>{_marks(given)}</style>"
    )


def _row(setting: form.Setting, value: Any, preset: TrainConfig) -> str:
    """One changed setting, what it usually is, and its way back."""
    usual = escape(_said(value_at(preset, setting.name)))
    reset = button("Reset", "reset", "link", f"Reset {setting.label}", name=setting.name)
    return (
        f"<li>{escape(setting.label)}: <b>{escape(_said(value))}</b> "
        f'<span class="quiet">(usually {usual})</span> {reset}</li>'
    )


def _marks(given: Mapping[str, Any]) -> str:
    """The style that writes "changed" behind the labels of the changed controls."""
    ids = [setting.elem_id for setting in form.settings() if setting.name in given]
    labels = ('[data-testid="block-info"]::after', "label.checkbox-container > span::after")
    places = ", ".join(f"#{elem_id} {label}" for elem_id in ids for label in labels)
    return f'{places} {{ content: " · changed"; color: var(--dora-accent-text); font-weight: 600; }}'


def _said(value: Any) -> str:
    """A value as a person writes it."""
    if value is None or value == []:
        return "automatic" if value is None else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _preset(studio: "Studio", subject_id: str, quality: str) -> TrainConfig:
    """What the quality says for the subject; without a subject, for the embedded base."""
    try:
        return studio.jobs.config(subject_id, quality, {})
    except DoraError:
        return TrainConfig(preset="toybox-balanced")
