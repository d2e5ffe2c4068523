"""The photos of the subject that is taught: given by a button or dropped, looked at, removed one by one."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.studio.ui.html import asked, button, picture
from dora_diffusion.studio.ui.html import panel as html_panel
from dora_diffusion.studio.ui.shared import PROMPT, Shared

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import PhotoNote

FEW = 3
ADVICE = "Three to twenty, from different sides and in different places. They are stored here and nowhere else."


def build_photos(studio: "Studio", shared: Shared, words: Sequence[Any]) -> None:
    """The upload, the thumbnails and the samples.

    Args:
        words: the components for class noun, name, trigger and base, for a subject that the first photos make.
    """
    samples = html_panel(elem_id="teach-samples")
    files = gr.File(
        elem_id="teach-photos",
        label="Photos",
        show_label=False,
        file_count="multiple",
        file_types=["image", ".heic", ".heif"],
        height=130,
    )
    refused = gr.HTML(elem_id="teach-refused")
    thumbs = html_panel(elem_id="teach-thumbs")

    def add(subject_id: str, paths: list[str] | None, noun: str, name: str, trigger: str, base: str) -> Any:
        given = [Path(path) for path in paths or []]
        if subject_id:
            faults = studio.subjects.add_photos(subject_id, given)
        else:
            subject_id, faults = draft(studio, given, name, noun, trigger, base)
        return subject_id, None, refusals_html(faults)

    def act(subject_id: str, event: gr.EventData) -> Any:
        wanted = asked(event)
        if wanted.get("do") == "remove":
            studio.subjects.remove_photo(subject_id, wanted.get("photo", ""))
        return gr.skip()

    def try_sample(event: gr.EventData) -> Any:
        wanted = asked(event)
        return (
            studio.subjects.create_from_sample(wanted.get("name", "")).id if wanted.get("do") == "sample" else gr.skip()
        )

    def look(subject_id: str) -> tuple[str, str]:
        known = {subject.id for subject in studio.subjects.list()}
        photos = studio.subjects.photos(subject_id) if subject_id in known else []
        return thumbs_html(photos), "" if subject_id in known else samples_html(studio.subjects.samples())

    shared.on_tick(look, [shared.subject], [thumbs, samples])
    uploaded = files.upload(
        shared.plain(add), [shared.subject, files, *words], [shared.subject, files, refused], **PROMPT
    )
    shared.then_tick(uploaded)
    shared.then_tick(thumbs.click(shared.plain(act), shared.subject, None, **PROMPT))
    shared.then_tick(samples.click(shared.plain(try_sample), None, shared.subject, **PROMPT))
    shared.subject.change(lambda: "", None, refused, show_progress="hidden", queue=False, api_visibility="private")


def draft(studio: "Studio", paths: list[Path], name: str, noun: str, trigger: str, base: str) -> tuple[str, list[str]]:
    """A new subject of the photos that can be used. Returns: its id, and what was refused."""
    made = studio.subjects.create(paths, name or "", noun or "", trigger or "", base)
    return made.id, []


def thumbs_html(photos: "Sequence[PhotoNote]") -> str:
    """The thumbnails with what is to be said about each, and how many there are."""
    if not photos:
        return f'<p class="quiet" data-count="0">{ADVICE}</p>'
    count = f"{len(photos)} photo{'s' if len(photos) > 1 else ''}"
    more = f" Add at least {FEW - len(photos)} more: one view teaches little." if len(photos) < FEW else ""
    cells = "".join(_thumb(photo, number) for number, photo in enumerate(photos, 1))
    return f'<p class="quiet" data-count="{len(photos)}">{count}.{more}</p><div class="thumbs">{cells}</div>'


def _thumb(photo: "PhotoNote", number: int) -> str:
    remove = button("✕", "remove", "round", f"Remove photo {number}, {photo.given_name}", photo=photo.name)
    found = "".join(f"<li>⚠ {escape(words)}</li>" for words in photo.findings)
    notes = f"<ul>{found}</ul>" if found else ""
    return (
        f'<figure data-photo="{escape(photo.name)}" class="{"doubtful" if found else ""}">'
        f"{picture(photo.thumb, f'photo {number}: {photo.given_name}')}{remove}<figcaption>{notes}</figcaption></figure>"
    )


def refusals_html(faults: Sequence[str]) -> str:
    """What was left out, and why."""
    items = "".join(f"<li>{escape(fault)}</li>" for fault in faults)
    return f'<ul class="refused" role="alert">{items}</ul>' if items else ""


def samples_html(names: Sequence[str]) -> str:
    """The samples as buttons."""
    buttons = "".join(
        button(name.capitalize(), "sample", "", f"Try it with the sample {name}", name=name) for name in names
    )
    return f'<p>No photos at hand? Try it with a sample:</p><div class="actions">{buttons}</div>' if names else ""
