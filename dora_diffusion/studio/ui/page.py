"""The page: photos, 'what is it?', Train; then a prompt and pictures."""

from pathlib import Path
from typing import Any

import gradio as gr

from dora_diffusion.studio.jobs import Studio
from dora_diffusion.studio.pictures import MAX_PICTURES, MAX_SEED, MAX_STRENGTH, Pictures
from dora_diffusion.studio.ui.actions import QUALITIES, Actions
from dora_diffusion.studio.ui.panel import EMPTY
from dora_diffusion.studio.ui.plain import plainly

STYLE = Path(__file__).with_name("style.css")
# Only events of the queue tell their errors on the page; what runs by itself, each second, does not need it.
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
PROMPT: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}


def build(studio: Studio, pictures: Pictures) -> gr.Blocks:
    """The page over a studio; made, not yet served."""
    with gr.Blocks(title="DoRA Studio", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(
            "# DoRA Studio\nTeach the embedded small model one subject from a handful of photos. "
            "Nothing leaves this computer; other base models are taught from the command line."
        )
        teach = _teach_part()
        create = _create_part()
        _bind(page, Actions(studio, pictures), plainly(studio.home / "app.log"), teach, create)
    return page


def _teach_part() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320):
            gr.Markdown("## 1 · Photos\nThree to twenty of one subject, from different sides and in different places.")
            parts["photos"] = gr.Gallery(
                elem_id="photos",
                label="Photos",
                show_label=False,
                file_types=["image", ".heic", ".heif"],
                sources=["upload"],
                type="filepath",
                interactive=True,
                columns=5,
                height=240,
                object_fit="cover",
                fit_columns=False,
                buttons=["fullscreen"],
            )
            gr.Markdown("## 2 · What is it?")
            with gr.Row():
                parts["noun"] = gr.Textbox(
                    elem_id="noun",
                    label="In one or two words",
                    placeholder="teapot, dog, backpack",
                    max_lines=1,
                    min_width=140,
                )
                parts["trigger"] = gr.Textbox(
                    "sks", elem_id="trigger", label="Trigger word (optional)", max_lines=1, min_width=140
                )
            parts["quality"] = gr.Radio(
                [(f"{name} ({steps} steps)", name) for name, steps in QUALITIES.items()],
                value="Standard",
                elem_id="quality",
                label="Quality",
            )
        with gr.Column(scale=1, min_width=320):
            gr.Markdown("## 3 · Train")
            with gr.Row():
                parts["train"] = gr.Button("Train", elem_id="train", variant="primary", min_width=120)
                parts["stop"] = gr.Button("Stop", elem_id="stop", variant="stop", interactive=False, min_width=120)
            parts["panel"] = gr.HTML(EMPTY, elem_id="job")
    return parts


def _create_part() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    gr.Markdown("## 4 · Make a picture")
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320):
            parts["subject"] = gr.Dropdown([], elem_id="subject", label="Subject", info="Trained subjects appear here.")
            parts["prompt"] = gr.Textbox(
                elem_id="prompt", label="Prompt", lines=2, placeholder="Written here as soon as a subject is trained."
            )
            parts["strength"] = gr.Slider(
                0,
                MAX_STRENGTH,
                value=1.0,
                step=0.05,
                elem_id="strength",
                label="Strength",
                info="0 is the base model, 1 is what was trained.",
            )
            with gr.Row():
                parts["seed"] = gr.Number(
                    0, elem_id="seed", label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120
                )
                parts["count"] = gr.Slider(
                    1, MAX_PICTURES, value=4, step=1, elem_id="count", label="Number of pictures", min_width=180
                )
            parts["make"] = gr.Button("Make a picture", elem_id="make", variant="primary", interactive=False)
        with gr.Column(scale=1, min_width=320):
            parts["gallery"] = gr.Gallery(
                elem_id="gallery",
                label="Pictures",
                show_label=False,
                columns=3,
                fit_columns=False,
                object_fit="contain",
                interactive=False,
                buttons=["download", "fullscreen"],
            )
    return parts


def _bind(page: gr.Blocks, actions: Actions, plain: Any, teach: dict[str, Any], create: dict[str, Any]) -> None:
    shown = gr.State({})
    form = [teach[name] for name in ("photos", "noun", "trigger", "quality")]
    live = [teach["panel"], teach["train"], teach["stop"], create["subject"], create["make"], shown]
    order = [create[name] for name in ("subject", "prompt", "strength", "seed", "count")]
    tick: dict[str, Any] = {"fn": plain(actions.tick), "inputs": shown, "outputs": live, **QUIET}

    page.load(plain(actions.restore), outputs=form, **QUIET)
    page.load(**tick)
    gr.Timer(1.0).tick(**tick)
    teach["train"].click(plain(actions.train), form, **PROMPT).then(**tick)
    teach["stop"].click(plain(actions.stop), **PROMPT).then(**tick)
    create["subject"].change(plain(actions.choose), create["subject"], [create["prompt"], create["gallery"]], **PROMPT)
    create["make"].click(
        plain(actions.draw),
        order,
        create["gallery"],
        concurrency_id="gpu",
        concurrency_limit=1,
        show_progress_on=create["gallery"],
        api_visibility="private",
    )
