"""The history: every picture that was made, the newest first, in pages; one of them large, with what can be done to it.

Where a page stands (its filter, its page, its picture) is one small state; what is shown always follows from that.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.pictures import ALONE
from dora_diffusion.studio.ui.choices import BASE, called, label_of, value_of
from dora_diffusion.studio.ui.controls import choice
from dora_diffusion.studio.ui.drawing import alt_of
from dora_diffusion.studio.ui.html import asked, button, link_to, panel, picture, whole
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared

if TYPE_CHECKING:
    from dora_diffusion.studio.pictures import Picture
    from dora_diffusion.studio.studio import Studio

PAGE = 24
ALL = "all"  # entries of the filter that are no subject's id, which ends with a number
START: dict[str, Any] = {"subject": ALL, "page": 0, "picked": None, "asks": False}
Place = dict[str, Any]


def build_history(
    studio: "Studio",
    shared: Shared,
    reuse: Callable[[int], tuple[Any, ...]],
    form: Sequence[Any],
    note: gr.HTML,
) -> None:
    """Make it, below the form whose fields ``form`` take what ``reuse(picture)`` gives, whose notes ``note`` tells."""
    with gr.Column(elem_classes="card"):
        _build(studio, shared, reuse, form, note)


def _build(
    studio: "Studio", shared: Shared, reuse: Callable[[int], tuple[Any, ...]], form: Sequence[Any], note: gr.HTML
) -> None:
    history = History(studio)
    gr.Markdown("## History", elem_id="history-title")
    subject = choice(
        history.subjects(),
        value=ALL,
        elem_id="history-subject",
        label="Show the pictures of",
    )
    with gr.Row(equal_height=False, elem_id="history"):
        with gr.Column(scale=3, min_width=320):
            grid = panel(elem_id="history-grid")
        with gr.Column(scale=2, min_width=320, elem_id="history-side"):
            detail = panel(elem_id="history-detail")
    place = gr.State(START)

    def pressed(now: Place, event: gr.EventData) -> Place:
        return history.press(now, asked(event))

    def reused(now: Place, event: gr.EventData) -> tuple[Any, ...]:
        if asked(event).get("do") != "reuse":
            return tuple(gr.skip() for _ in (*form, note))
        *values, notes = reuse(now["picked"])
        return (*values, notes_html(notes, "The form has the settings of the picture you chose."))

    shared.on_tick(history.shown, [place], [grid, detail])
    shared.on_tick(lambda: gr.Dropdown(choices=history.subjects()), [], [subject])
    shared.then_tick(subject.input(shared.plain(history.choose), subject, place, **QUIET))
    for part in (grid, detail):
        shared.then_tick(part.click(shared.plain(pressed), place, place, **PROMPT))
    detail.click(shared.plain(reused), place, [*form, note], **PROMPT)


class History:
    """What the history shows of a studio's pictures."""

    def __init__(self, studio: "Studio"):
        self._studio = studio

    def subjects(self) -> list[tuple[str, str]]:
        """The entries of the filter."""
        taught = [(called(subject), subject.id) for subject in self._studio.subjects.list()]
        return [("All", ALL), *taught, ("Base models alone", BASE)]

    def choose(self, entry: str | None) -> Place:
        """Only the pictures of an entry of the filter, from the newest.

        Raises:
            StudioError: there is no such subject.
        """
        if not entry or entry in (ALL, BASE):
            return {**START, "subject": entry or ALL}
        return {**START, "subject": self._studio.subjects.get(entry).id}

    def press(self, place: Place, wanted: dict[str, str]) -> Place:
        """Where a page stands after one of the buttons.

        Raises:
            StudioError: the picture is gone, or the press makes no sense.
        """
        do, number = wanted.get("do"), whole(wanted.get("id")) or 0
        if do == "page":
            return {**place, "page": number}
        if do == "pick":
            return {**place, "picked": self._studio.pictures.get(number).id, "asks": False}
        if do in ("delete", "keep"):
            return {**place, "asks": do == "delete"}
        if do == "delete-yes" and place["picked"] is not None:
            self._studio.pictures.delete(place["picked"])
            return {**place, "picked": None, "asks": False}
        return place

    def shown(self, place: Place) -> tuple[str, str]:
        """HTML of the page's pictures and of the picked one."""
        return self._grid(place), self._detail(place)

    def _grid(self, place: Place) -> str:
        subject = {ALL: None, BASE: ALONE}.get(place["subject"], place["subject"])
        count = self._studio.pictures.count(subject)
        if not count:
            return '<p id="history-empty" class="empty">No pictures yet. What you generate is kept here.</p>'
        pages = (count + PAGE - 1) // PAGE
        page = min(max(0, place["page"]), pages - 1)
        pictures = self._studio.pictures.history(subject, PAGE, page * PAGE)
        tiles = "".join(_tile(found, found.id == place["picked"]) for found in pictures)
        return f'{_pager(page, pages, count)}<ul class="tiles">{tiles}</ul>'

    def _detail(self, place: Place) -> str:
        if place["picked"] is None:
            return '<p class="empty">Choose a picture to see it large, with its settings.</p>'
        try:
            found = self._studio.pictures.get(place["picked"])
        except StudioError:
            return '<p class="empty">This picture was deleted.</p>'
        return _large(found, self._called(found), place["asks"])

    def _called(self, found: "Picture") -> str:
        try:
            return label_of(self._studio, value_of(found.order))
        except StudioError:
            return f"{found.order.subject_id or found.order.base} (not here any more)"


def notes_html(notes: Sequence[str], first: str = "The form has the settings of this picture.") -> str:
    """What was taken over from a picture, and what could not be."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<div class="notice" role="status"><p>✓ {escape(first)}</p>{f"<ul>{items}</ul>" if items else ""}</div>'


def _tile(found: "Picture", is_picked: bool) -> str:
    pressed = str(is_picked).lower()
    shown = picture(found.thumb, alt_of(found))
    tag = f'<button class="tile" data-do="pick" data-id="{found.id}" aria-pressed="{pressed}">'
    return f"<li>{tag}{shown}</button></li>"


def _pager(page: int, pages: int, count: int) -> str:
    words = f"{count} picture{'s' if count != 1 else ''}"
    if pages == 1:
        return f'<p class="pager"><span id="history-count" data-count="{count}">{words}</span></p>'
    newer = button("← Newer", "page", id=str(page - 1)) if page else ""
    older = button("Older →", "page", id=str(page + 1)) if page + 1 < pages else ""
    where = f'<span id="history-count" data-count="{count}">Page {page + 1} of {pages} · {words}</span>'
    return f'<nav class="pager" aria-label="Pages of the history">{newer}{where}{older}</nav>'


def _large(found: "Picture", subject: str, asks: bool) -> str:
    order = found.order
    sampler = "the base's own" if order.sampler == "model" else order.sampler
    guidance = "the base's own" if order.guidance_scale is None else f"{order.guidance_scale:g}"
    rows = {
        "Prompt": order.prompt,
        "Sent as": found.sent if found.sent != order.prompt else "",
        "Negative": order.negative_prompt,
        "Subject": subject,
        "Strength": f"{order.strength:g}",
        "Seed": str(order.seed),
        "Steps": f"{order.num_inference_steps}, guidance {guidance}, sampler {sampler}",
        "Made": f"{datetime.fromtimestamp(found.created):%d %b %Y, %H:%M}",
    }
    table = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in rows.items() if words)
    name = escape(found.path.name)
    link = escape(link_to(found.path))
    if asks:
        actions = (
            '<span role="alert">Delete this picture for good?</span>'
            f"{button('Delete it', 'delete-yes', 'stop')}{button('Keep it', 'keep')}"
        )
    else:
        actions = (
            f"{button('Reuse settings', 'reuse', 'primary')}"
            f'<a class="act" id="history-download" href="{link}" download="{name}">Download</a>'
            f"{button('Delete', 'delete', 'stop')}"
        )
    return (
        f'<h3>Picture {found.id}</h3><a class="large" href="{link}" target="_blank" rel="noopener">'
        f"{picture(found.path, alt_of(found))}</a>"
        f'<p class="acts">{actions}</p><dl class="facts">{table}</dl>'
    )
