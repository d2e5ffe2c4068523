"""The shell of the page: title, what runs, and the tabs of the registry."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.registry import TABS
from dora_diffusion.studio.ui.api import build_api
from dora_diffusion.studio.ui.header import build_header
from dora_diffusion.studio.ui.shared import QUIET, Shared, find

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio

STYLES = sorted(Path(__file__).parent.glob("style*.css"))
# The browser keeps which tab and which subject were shown last, and nothing else. The name and the key are fixed:
# otherwise it would forget with each start of the studio. What is kept is no secret; the key is Gradio's wish.
KEPT_UNDER, KEPT_KEY = "dora-studio-v1", "dora-studio-view"


def build(studio: "Studio") -> gr.Blocks:
    """The page over a studio; made, not yet served."""
    with gr.Blocks(title="DoRA Studio", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        build_api(studio)  # first: a handler of a tab that has an endpoint's name would take it
        kept = gr.BrowserState({"tab": "", "subject": ""}, storage_key=KEPT_UNDER, secret=KEPT_KEY)
        subject = gr.Textbox(visible="hidden", elem_id="subject", label="Chosen subject")
        checkpoint = gr.Textbox(visible="hidden", elem_id="checkpoint", label="Chosen checkpoint")
        tabs = gr.Tabs(elem_id="tabs", render=False)
        shared = Shared(studio, page, tabs, subject, checkpoint)
        shared.on_tick(shared.usable, [subject], [shared.ready])
        build_header(studio, shared)
        tabs.render()
        with tabs:
            for name in TABS:
                tab = TABS.load(name)
                with gr.Tab(tab.label, id=name, elem_id=f"tab-{name}"):
                    tab.build(studio, shared)
        _remember(shared, kept)
        shared.bind()
    return page


def theme() -> gr.themes.Base:
    """Gradio's own look in our colours and the computer's own letters, so that no font is fetched from anybody."""
    look = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return look.set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_large_radius="*radius_lg",
    )


def _remember(shared: Shared, kept: gr.BrowserState) -> None:
    """The tab and the subject that this browser showed last are shown again."""

    def restore(view: Any) -> tuple[Any, Any]:
        view = view if isinstance(view, dict) else {}
        subjects = shared.studio.subjects
        newest = subjects.latest_draft() or next(iter(subjects.list()), None)
        subject = find(shared.studio, str(view.get("subject", ""))) or newest
        return shared.go(view["tab"]) if view.get("tab") in TABS else gr.skip(), subject.id if subject else ""

    def note_tab(view: Any, event: gr.SelectData) -> dict[str, Any]:
        names = list(TABS)
        return {**view, "tab": names[event.index] if isinstance(event.index, int) and event.index < len(names) else ""}

    def note_subject(view: Any, subject: str) -> dict[str, Any]:
        return {**view, "subject": subject}

    shared.page.load(shared.plain(restore), kept, [shared.tabs, shared.subject], **QUIET)
    shared.tabs.select(shared.plain(note_tab), kept, kept, **QUIET)
    shared.subject.change(shared.plain(note_subject), [kept, shared.subject], kept, **QUIET)
