"""Create: a subject, a few words, Generate; and the history of all pictures."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.registry import SAMPLERS
from dora_diffusion.studio.orders import MAX_GUIDANCE, MAX_PICTURES, MAX_SEED, MAX_SIDE, MAX_STEPS, MAX_STRENGTH, RANDOM
from dora_diffusion.studio.ui.choices import BASE, subject_of
from dora_diffusion.studio.ui.controls import choice
from dora_diffusion.studio.ui.create_actions import IDLE, CreateActions, last_seed, random_seed
from dora_diffusion.studio.ui.drawing import DRAW
from dora_diffusion.studio.ui.history import build_history, notes_html
from dora_diffusion.studio.ui.results import note_panel, state_panel
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared
from dora_diffusion.studio.ui.suggestions import SCENES, STYLES, with_scene, with_style

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio

Parts = dict[str, Any]

# The fields that make an order, as ``CreateActions.order`` and ``form_of`` take and give them.
FORM = (
    *("subject", "prompt", "negative", "strength", "seed", "count"),
    *("steps", "guidance", "sampler", "width", "height"),
)


class Create:
    """The tab that makes pictures."""

    label = "Create"

    def build(self, studio: "Studio", shared: Shared) -> None:
        actions = CreateActions(studio, shared.line, shared.entries)
        parts: Parts = {}
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320, elem_classes="card"):
                # The button comes last: where the page is narrow, what it makes stands right below it.
                parts |= _words(actions) | _numbers() | _more() | _buttons()
            with gr.Column(scale=5, min_width=320, elem_classes="card results"):
                parts |= _results()
        parts["last_seed"] = gr.State(None)
        parts["written"] = gr.State("")
        form = [parts[name] for name in FORM]
        _bind_words(actions, shared, parts)
        _bind_drawing(actions, shared, parts, form)
        build_history(studio, shared, actions.reuse, form, parts["note"])


def _words(actions: CreateActions) -> Parts:
    entries = actions.entries()
    parts: Parts = {}
    parts["subject"] = choice(
        entries,
        value=entries[0][1] if entries else f"{BASE}toybox",
        elem_id="create-subject",
        label="Subject",
        info="Trained subjects, then the base models alone.",
    )
    parts["strength"] = gr.Slider(
        0,
        MAX_STRENGTH,
        value=1.0,
        step=0.05,
        elem_id="create-strength",
        label="Strength",
        info="0 is the base model, 1 is what was trained, more exaggerates it.",
    )
    parts["prompt"] = gr.Textbox(
        elem_id="create-prompt",
        label="Prompt",
        info="What the picture shall show. Ctrl+Enter draws it.",
        lines=3,
        max_length=1000,
    )
    parts["help"] = gr.HTML(elem_id="create-help")
    with gr.Row(elem_id="create-suggestions", elem_classes="chips"):
        parts["fix"] = gr.Button(
            "Correct it", elem_id="create-fix", size="sm", variant="primary", visible=False, min_width=60
        )
        for kind, names in (("scene", SCENES), ("style", STYLES)):
            for name in names:
                chip = f"create-{kind}-{name.lower().replace(' ', '-')}"
                parts[f"{kind}:{name}"] = gr.Button(name, elem_id=chip, size="sm", min_width=60)
    parts["negative"] = gr.Textbox(
        elem_id="create-negative",
        label="Negative prompt (optional)",
        placeholder="What the picture shall not show",
        max_lines=2,
        max_length=1000,
    )
    return parts


def _numbers() -> Parts:
    parts: Parts = {}
    with gr.Row():
        parts["count"] = gr.Slider(
            1, MAX_PICTURES, value=4, step=1, elem_id="create-count", label="Pictures", min_width=160
        )
        parts["seed"] = gr.Number(
            RANDOM,
            elem_id="create-seed",
            label="Seed",
            info="-1 is another one each time.",
            precision=0,
            minimum=RANDOM,
            maximum=MAX_SEED,
            min_width=160,
        )
    with gr.Row(elem_classes="chips seed-buttons"):
        parts["random"] = gr.Button("Random seed", elem_id="create-random", size="sm", min_width=60)
        parts["reuse_seed"] = gr.Button("Reuse last seed", elem_id="create-reuse-seed", size="sm", min_width=60)
    return parts


def _buttons() -> Parts:
    parts: Parts = {}
    with gr.Row():
        parts["generate"] = gr.Button("Generate", elem_id="create-generate", variant="primary", min_width=120)
        parts["stop"] = gr.Button("Stop", elem_id="create-stop", variant="stop", interactive=False, min_width=120)
    return parts


def _more() -> Parts:
    parts: Parts = {}
    with gr.Accordion("More settings", open=False, elem_id="create-more"):
        parts["steps"] = gr.Slider(
            1,
            MAX_STEPS,
            value=25,
            step=1,
            elem_id="create-steps",
            label="Sampling steps",
            info="More is slower and finer.",
        )
        with gr.Row():
            parts["guidance"] = gr.Textbox(
                elem_id="create-guidance",
                label="Guidance",
                info=f"How strictly the prompt is followed, 0 to {MAX_GUIDANCE:g}. Empty: what suits the base.",
                max_lines=1,
                max_length=10,
                min_width=140,
            )
            parts["sampler"] = gr.Dropdown(
                [("the base's own", "model"), *((name, name) for name in SAMPLERS)],
                value="model",
                elem_id="create-sampler",
                label="Sampler",
                info="How noise becomes a picture.",
                filterable=False,
                min_width=140,
            )
        with gr.Row():
            for side in ("width", "height"):
                parts[side] = gr.Textbox(
                    elem_id=f"create-{side}",
                    label=side.capitalize(),
                    info=f"Pixels, a multiple of 8, {MAX_SIDE} at most. Empty: the base's own.",
                    max_lines=1,
                    max_length=10,
                    min_width=140,
                )
    with gr.Accordion("Settings from a picture", open=False, elem_id="create-from-picture"):
        parts["file"] = gr.File(
            elem_id="create-file", label="A PNG made here, or by another program", file_types=[".png"], height=120
        )
    parts["note"] = note_panel("create-note")
    return parts


def _results() -> Parts:
    parts: Parts = {"state": state_panel(IDLE, "create-state", "create-prompt", "create-generate")}
    parts["gallery"] = gr.Gallery(
        elem_id="create-gallery",
        elem_classes="quiet-captions",
        label="Pictures",
        show_label=False,
        columns=2,
        height="auto",
        fit_columns=False,
        object_fit="contain",
        interactive=False,
        buttons=["download", "fullscreen"],
    )
    return parts


def _bind_words(actions: CreateActions, shared: Shared, parts: Parts) -> None:
    plain, subject, prompt = shared.plain, parts["subject"], parts["prompt"]
    shared.on_tick(actions.choices, [subject], [subject])
    followed = gr.on(
        [shared.subject.change, shared.ready.change, shared.checkpoint.change],
        plain(actions.follow),
        [shared.subject, shared.checkpoint, subject],
        subject,
        **QUIET,
    )
    # Where the user chooses, here or on another tab, not where a picture's own settings fill the form.
    for chosen in (subject.input, followed.then):
        chosen(plain(actions.renamed), [subject, prompt], prompt, **QUIET)
    subject.input(lambda value: subject_of(value) or gr.skip(), subject, shared.subject, **QUIET)
    opened = [prompt, parts["written"]]
    gr.on(
        [subject.change, shared.page.load],
        plain(actions.opened),
        [subject, prompt, parts["written"]],
        opened,
        trigger_mode="always_last",
        **QUIET,
    )
    gr.on(
        [prompt.change, subject.change],
        plain(actions.help),
        [subject, prompt],
        [parts["help"], parts["fix"]],
        trigger_mode="always_last",
        **QUIET,
    )
    parts["fix"].click(plain(actions.insert), [subject, prompt], prompt, **PROMPT)
    for kind, names, change in (("scene", SCENES, with_scene), ("style", STYLES, with_style)):
        for name in names:
            handler = plain(lambda words, change=change, name=name: change(words or "", name))
            parts[f"{kind}:{name}"].click(handler, prompt, prompt, **QUIET)


def _bind_drawing(actions: CreateActions, shared: Shared, parts: Parts, form: list[Any]) -> None:
    plain = shared.plain
    shown = [parts["gallery"], parts["state"], parts["last_seed"], parts["stop"]]
    drawing = gr.on([parts["generate"].click, parts["prompt"].submit], plain(actions.draw), form, shown, **DRAW)
    shared.then_tick(drawing)
    parts["stop"].click(plain(actions.stop), None, None, **PROMPT)
    shared.page.unload(actions.leave)
    parts["random"].click(plain(random_seed), None, parts["seed"], **QUIET)
    parts["reuse_seed"].click(plain(last_seed), parts["last_seed"], parts["seed"], **QUIET)

    def read(path: str | None) -> tuple[Any, ...]:
        *values, notes = actions.read(path)
        return (*values, notes_html(notes), None)

    parts["file"].upload(plain(read), parts["file"], [*form, parts["note"], parts["file"]], **PROMPT)


CREATE = Create()
