"""Subjects: all of them as cards, and one in full: rename, teach again, choose a checkpoint, delete and undo."""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.ui.cards import Sizes, cards_html
from dora_diffusion.studio.ui.header import do as do_job
from dora_diffusion.studio.ui.html import asked, button, panel, whole
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared
from dora_diffusion.studio.ui.subject_detail import detail_html

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio

NOTHING = '<p class="empty" id="subject-none">Open a subject to see its photos, its training and its checkpoints.</p>'


class SubjectsTab:
    """The tab of all subjects."""

    label = "Subjects"

    def build(self, studio: "Studio", shared: Shared) -> None:
        actions = SubjectActions(studio, shared)
        with gr.Row(equal_height=False, elem_id="subjects"):
            with gr.Column(scale=2, min_width=320):
                cards = panel(elem_id="subjects-cards")
            with gr.Column(scale=3, min_width=320, elem_classes="card"):
                detail = panel(elem_id="subjects-detail")
                with gr.Accordion("Rename or delete", open=False, elem_id="subjects-change", visible=False) as change:
                    name, rename = _field("subjects-name", "Name", "What you call it.", "Rename", "secondary")
                    info = "Type the name to delete the subject, its trainings and its pictures."
                    typed, delete = _field("subjects-typed", "Delete", info, "Delete", "stop")
                # Outside of what is folded away with the subject: a deletion is told here too.
                undo = panel(elem_id="subjects-undo")
        page, asks = gr.State(0), gr.State("")
        shared.on_tick(actions.cards, [shared.subject, page], [cards])
        shared.on_tick(actions.detail, [shared.subject, asks], [detail, change])
        plain, chosen = shared.plain, shared.subject
        shared.then_tick(cards.click(plain(actions.press_card), page, [chosen, shared.tabs, page], **PROMPT))
        shared.then_tick(detail.click(plain(actions.press_detail), chosen, [chosen, shared.tabs, asks], **PROMPT))
        detail.click(plain(actions.wants_pictures), None, shared.checkpoint, **PROMPT)
        chosen.change(plain(actions.name_of), chosen, [name, typed], **QUIET)
        chosen.change(plain(still_told), [chosen, undo], undo, **QUIET)
        for event in (rename.click, name.submit):
            shared.then_tick(event(plain(actions.rename), [chosen, name], undo, **PROMPT))
        for event in (delete.click, typed.submit):
            shared.then_tick(event(plain(actions.delete), [chosen, typed], [undo, typed, chosen], **PROMPT))
        shared.then_tick(undo.click(plain(actions.undo), None, [undo, chosen], **PROMPT))


def _field(elem_id: str, label: str, info: str, does: str, look: str) -> tuple[gr.Textbox, gr.Button]:
    with gr.Row(equal_height=False, elem_classes="field-and-button"):
        field = gr.Textbox(elem_id=elem_id, label=label, info=info, max_lines=1, max_length=100, scale=3, min_width=160)
        return field, gr.Button(does, variant=look, elem_id=f"{elem_id}-button", scale=1, min_width=100)


class SubjectActions:
    """The handlers of Subjects over one studio."""

    def __init__(self, studio: "Studio", shared: Shared):
        self._studio = studio
        self._shared = shared
        self._sizes = Sizes(studio)

    def cards(self, chosen: str, page: int) -> str:
        """HTML of the cards."""
        return cards_html(self._studio, self._sizes, chosen, page)

    def detail(self, chosen: str, asks: str = "") -> tuple[str, Any]:
        """HTML of the chosen subject, and whether it can be renamed and deleted.

        Args:
            asks: the training whose removal is to be confirmed.
        """
        try:
            subject = self._studio.subjects.get(chosen) if chosen else None
        except StudioError:
            subject = None
        if subject is None:
            return NOTHING, gr.Accordion(visible=False)
        if subject.deleted is not None:
            gone = f'<p class="empty" id="subject-none">{escape(subject.name)} was deleted.</p>'
            return gone, gr.Accordion(visible=False)
        return detail_html(self._studio, subject, asks), gr.Accordion(visible=not self._studio.is_read_only)

    def name_of(self, chosen: str) -> tuple[str, str]:
        """What stands in the fields for name and deletion when another subject was chosen."""
        try:
            return (self._studio.subjects.get(chosen).name if chosen else ""), ""
        except StudioError:
            return "", ""

    def press_card(self, page: int, event: gr.EventData) -> tuple[Any, Any, Any]:
        """Open a card, turn the page, begin to teach.

        Returns: chosen subject, tabs, page.

        Raises:
            StudioError: the subject is gone.
        """
        wanted = asked(event)
        do = wanted.get("do")
        if do == "open":
            return self._studio.subjects.get(wanted.get("id", "")).id, gr.skip(), gr.skip()
        if do == "sample":
            made = self._studio.subjects.create_from_sample(wanted.get("name", ""))
            return made.id, self._shared.go("teach"), gr.skip()
        if do == "teach":
            return gr.skip(), self._shared.go("teach"), gr.skip()
        number = whole(wanted.get("page"))
        if do == "page" and number is not None:
            return gr.skip(), gr.skip(), number
        return gr.skip(), gr.skip(), gr.skip()

    def press_detail(self, chosen: str, event: gr.EventData) -> tuple[Any, Any, str]:
        """What a button of the subject says.

        Returns: chosen subject, tabs, the training whose removal is to be confirmed.

        Raises:
            StudioError: subject, training or checkpoint are gone, or its state does not allow it.
        """
        wanted = asked(event)
        do = wanted.get("do")
        step = whole(wanted.get("step"))
        if do == "use" and step is not None:
            self._studio.subjects.choose(chosen, wanted.get("job", ""), step)
            return gr.skip(), gr.skip(), ""
        if do == "remove":
            return gr.skip(), gr.skip(), self._studio.jobs.get(wanted.get("job", "")).id
        if do == "remove-yes":
            self._studio.jobs.remove(wanted.get("job", ""))
            return gr.skip(), gr.skip(), ""
        if do in ("retrain", "export"):
            subject = self._studio.subjects.get(wanted.get("subject", "")).id
            return subject, self._shared.go("teach" if do == "retrain" else "export"), ""
        tab, subject = do_job(self._studio, self._shared, wanted)
        return subject, tab, ""

    def wants_pictures(self, event: gr.EventData) -> Any:
        """Create shall show the subject itself, where the button says so."""
        return self._shared.anew() if asked(event).get("do") == "create" else gr.skip()

    def rename(self, chosen: str, name: str) -> str:
        """Give the subject another name.

        Raises:
            StudioError: it is gone, or the name cannot be one.
        """
        return _notice(f"It is called {self._studio.subjects.rename(chosen, name or '').name} now.", of=chosen)

    def delete(self, chosen: str, typed: str) -> tuple[str, str, str]:
        """Move the subject into the trash, if its name was typed.

        Raises:
            StudioError: another name was typed, or it is being taught.
        """
        subject = self._studio.subjects.get(chosen)
        self._studio.subjects.delete(chosen, typed or "")
        words = f"{subject.name} was deleted. It can be brought back for 7 days."
        return _notice(words, button("Undo", "undo", "primary", f"Bring {subject.name} back", id=subject.id)), "", ""

    def undo(self, event: gr.EventData) -> tuple[str, Any]:
        """Bring a deleted subject back.

        Raises:
            StudioError: it is not in the trash any more.
        """
        wanted = asked(event)
        if wanted.get("do") != "undo":
            return gr.skip(), gr.skip()
        subject = self._studio.subjects.restore(wanted.get("id", ""))
        return _notice(f"{subject.name} is back.", of=subject.id), subject.id


def still_told(chosen: str, notice: str | None) -> Any:
    """What was done to a subject is told until another one is shown; how to undo a deletion, until it is needed."""
    is_kept = "data-of=" not in (notice or "") or f'data-of="{escape(chosen)}"' in (notice or "")
    return gr.skip() if is_kept else ""


def _notice(words: str, act: str = "", of: str = "") -> str:
    whose = f' data-of="{escape(of)}"' if of else ""
    return f'<div class="notice" role="status"{whose}><p>✓ {escape(words)} {act}</p></div>'


SUBJECTS = SubjectsTab()
