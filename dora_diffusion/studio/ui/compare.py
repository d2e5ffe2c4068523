"""Compare: the same prompt with one thing changed, as a grid with headers, saved as one picture."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.studio.comparisons import MODES
from dora_diffusion.studio.orders import MAX_SEED, MAX_STEPS, MAX_STRENGTH
from dora_diffusion.studio.ui.choices import followed, subject_of, target
from dora_diffusion.studio.ui.compare_actions import IDLE, CompareActions
from dora_diffusion.studio.ui.controls import choice
from dora_diffusion.studio.ui.drawing import DRAW
from dora_diffusion.studio.ui.line import Line
from dora_diffusion.studio.ui.results import state_panel
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio

Parts = dict[str, Any]
# As ``CompareActions.plan`` takes them.
FORM = ("mode", "subject", "job", "values", "rows", "prompt", "strength", "seed", "steps")


class Compare:
    """The tab that compares."""

    label = "Compare"

    def build(self, studio: "Studio", shared: Shared) -> None:
        # A line of its own: who wants a picture meanwhile waits for one cell, not for the whole grid.
        actions = CompareActions(studio, Line(), shared.entries)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320, elem_classes="card"):
                parts = _form(actions)
            with gr.Column(scale=3, min_width=320, elem_classes="card results"):
                parts |= _results()
        parts["written"] = gr.State("")
        _bind_form(studio, actions, shared, parts)
        _bind_drawing(actions, shared, parts)


def _form(actions: CompareActions) -> Parts:
    entries = actions.subjects()
    parts: Parts = {}
    parts["mode"] = gr.Radio(
        [(label, mode) for mode, label in MODES.items()], value="base", elem_id="compare-mode", label="Compare"
    )
    parts["subject"] = choice(
        entries,
        value=entries[0][1] if entries else None,
        elem_id="compare-subject",
        label="Subject",
    )
    parts["job"] = choice(
        [],
        elem_id="compare-job",
        label="Training",
        info="Whose checkpoints are compared.",
        visible=False,
    )
    parts["prompt"] = gr.Textbox(
        elem_id="compare-prompt",
        label="Prompt",
        info="The same in every cell. Ctrl+Enter draws it.",
        lines=2,
        max_length=1000,
    )
    parts["values"] = gr.Textbox(elem_id="compare-values", label="Values", visible=False, max_lines=1)
    parts["rows"] = gr.Textbox(
        elem_id="compare-rows",
        label="Seeds, a row each (optional)",
        info="For example 1, 2. Empty: one row with the seed below.",
        max_lines=1,
    )
    with gr.Row():
        parts["seed"] = gr.Number(
            0, elem_id="compare-seed", label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=100
        )
        parts["steps"] = gr.Number(
            25,
            elem_id="compare-steps",
            label="Sampling steps",
            precision=0,
            minimum=1,
            maximum=MAX_STEPS,
            min_width=100,
        )
    parts["strength"] = gr.Slider(0, MAX_STRENGTH, value=1.0, step=0.05, elem_id="compare-strength", label="Strength")
    parts["cost"] = gr.HTML(elem_id="compare-cost-box")
    with gr.Row():
        parts["draw"] = gr.Button("Compare", elem_id="compare-draw", variant="primary", min_width=120)
        parts["stop"] = gr.Button("Stop", elem_id="compare-stop", variant="stop", interactive=False, min_width=120)
    return parts


def _results() -> Parts:
    parts: Parts = {"state": state_panel(IDLE, "compare-state", "compare-prompt", "compare-draw")}
    parts["grid"] = gr.HTML(elem_id="compare-grid")
    parts["slider"] = gr.ImageSlider(
        elem_id="compare-slider",
        label="One over the other",
        type="filepath",
        interactive=False,
        visible=False,
        height=360,
        buttons=["fullscreen"],
    )
    parts["save"] = gr.DownloadButton("Save as one PNG", elem_id="compare-save", interactive=False)
    return parts


def _bind_form(studio: "Studio", actions: CompareActions, shared: Shared, parts: Parts) -> None:
    plain, subject = shared.plain, parts["subject"]

    def follow(subject_id: str, current: str | None) -> Any:
        return followed([value for _, value in actions.subjects()], subject_id, current) or gr.skip()

    def opened(value: str | None, prompt: str | None, written: str) -> tuple[Any, Any]:
        chosen = target(studio, value).subject if value else None
        mine = f"a photo of {chosen.words if chosen else 'a red teapot'} on the beach"
        return (mine, mine) if not (prompt or "").strip() or prompt == written else (gr.skip(), gr.skip())

    shared.on_tick(lambda: gr.Dropdown(choices=actions.subjects()), [], [subject])
    chosen = [shared.subject.change, shared.ready.change]
    gr.on(chosen, plain(follow), [shared.subject, subject], subject, **QUIET)
    subject.input(lambda value: subject_of(value) or gr.skip(), subject, shared.subject, **QUIET)
    asked = [parts["mode"], subject]
    gr.on([part.change for part in asked], plain(actions.mode), asked, [parts["values"], parts["job"]], **QUIET)
    shared_by_all = [parts[name] for name in ("rows", "seed", "strength")]
    asked = [*asked, parts["rows"]]
    gr.on([part.change for part in asked], plain(actions.meant), asked, shared_by_all, **QUIET)
    parts["job"].input(plain(actions.steps), parts["job"], parts["values"], **QUIET)
    gr.on(
        [subject.change, shared.page.load],
        plain(opened),
        [subject, parts["prompt"], parts["written"]],
        [parts["prompt"], parts["written"]],
        **QUIET,
    )
    form = [parts[name] for name in FORM]
    changes = [part.change for part in form]
    gr.on(changes, plain(actions.cost), form, parts["cost"], trigger_mode="always_last", **QUIET)


def _bind_drawing(actions: CompareActions, shared: Shared, parts: Parts) -> None:
    plain = shared.plain
    shown = [parts[name] for name in ("grid", "slider", "state", "stop", "save")]
    form = [parts[name] for name in FORM]
    gr.on([parts["draw"].click, parts["prompt"].submit], plain(actions.draw), form, shown, **DRAW)
    parts["stop"].click(plain(actions.stop), None, None, **PROMPT)
    shared.page.unload(actions.leave)


COMPARE = Compare()
