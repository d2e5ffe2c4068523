"""The photos of the subject that is taught: given by a button or dropped, looked at, removed one by one."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.studio.ui.html import asked, button, picture
from dora_diffusion.studio.ui.html import panel as html_panel
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared, find

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import PhotoNote, Subject

FEW = 3
NOUN = "#teach-noun :is(input, textarea)"  # what comes after the photos
OTHERS = (
    '<p class="quiet" data-others="true">The training that waits or runs keeps the photos it was started with. '
    "Train again afterwards to use these.</p>"
)
ADVICE = "Three to twenty, from different sides and in different places. They are stored here and nowhere else."


def build_photos(
    studio: "Studio", shared: Shared, owner: gr.Textbox, words: Sequence[Any]
) -> tuple[gr.events.Dependency, gr.HTML]:
    """The upload, the thumbnails and the samples. Returns: the event of an upload, and what it left out.

    Args:
        owner: whose words the page shows; a subject that the first photos make has those that are being written.
        words: the components for class noun, name, trigger and base.
    """
    samples = html_panel(elem_id="teach-samples", then=NOUN)
    files = gr.File(
        elem_id="teach-photos",
        label="Photos",
        show_label=False,
        file_count="multiple",
        file_types=["image", ".heic", ".heif"],
        height=130,
    )
    refused = gr.HTML(elem_id="teach-refused")
    thumbs = html_panel(elem_id="teach-thumbs", then=NOUN)

    def add(subject_id: str, paths: list[str] | None, noun: str, name: str, trigger: str, base: str) -> Any:
        known = find(studio, subject_id)
        subject = known or draft(studio, noun, name, trigger, base)
        faults = studio.subjects.add_photos(subject.id, [Path(path) for path in paths or []])
        return subject.id, gr.skip() if known else subject.id, None, refusals_html(faults, subject.id)

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
        photos = studio.subjects.photos(subject_id) if find(studio, subject_id) else []
        shown = thumbs_html(photos) + (OTHERS if photos and are_others(studio, subject_id, photos) else "")
        return shown, "" if photos else samples_html(studio.subjects.samples())

    shared.on_tick(look, [shared.subject], [thumbs, samples])
    uploaded = files.upload(
        shared.plain(add), [shared.subject, files, *words], [shared.subject, owner, files, refused], **PROMPT
    )
    shared.then_tick(uploaded)
    shared.then_tick(thumbs.click(shared.plain(act), shared.subject, None, **PROMPT))
    shared.then_tick(samples.click(shared.plain(try_sample), None, shared.subject, **PROMPT))
    shared.subject.change(shared.plain(still_told), [shared.subject, refused], refused, **QUIET)
    return uploaded, refused


def draft(studio: "Studio", noun: str, name: str, trigger: str, base: str) -> "Subject":
    """A subject that is kept from its first photo on, with the words that are there already; an unused one is taken."""
    made = studio.subjects.latest_draft()
    if made is None or studio.subjects.photos(made.id):
        made = studio.subjects.draft(base)
    return studio.subjects.update(
        made.id, name=name or None, class_noun=noun.strip() or None, trigger=trigger or None, base=base or None
    )


def are_others(studio: "Studio", subject_id: str, photos: "Sequence[PhotoNote]") -> bool:
    """Whether the training that waits or runs has other photos than its subject has now."""
    unfinished = [job for job in studio.jobs.of_subject(subject_id) if not job.has_ended]
    now = {photo.name for photo in photos}
    return any(set(studio.jobs.photos(job.id)) != now for job in unfinished)


def thumbs_html(photos: "Sequence[PhotoNote]") -> str:
    """The thumbnails with what is to be said about each, and how many there are."""
    if not photos:
        return f'<p class="quiet" data-count="0">{ADVICE}</p>'
    count = f"{len(photos)} photo{'s' if len(photos) > 1 else ''}"
    more = f" Fewer than {FEW} teach little: add more if you can." if len(photos) < FEW else ""
    cells = "".join(_thumb(photo, number) for number, photo in enumerate(photos, 1))
    found = "".join(f"<li>⚠ {escape(words)}</li>" for photo in photos for words in photo.findings)
    notes = f'<ul class="findings">{found}</ul>' if found else ""
    return f'<p class="quiet" data-count="{len(photos)}">{count}.{more}</p><div class="thumbs">{cells}</div>{notes}'


def _thumb(photo: "PhotoNote", number: int) -> str:
    remove = button("✕", "remove", "round", f"Remove photo {number}, {photo.given_name}", photo=photo.name)
    kind = "doubtful" if photo.findings else ""
    shown = picture(photo.thumb, f"photo {number}: {photo.given_name}")
    return (
        f'<figure data-photo="{escape(photo.name)}" class="{kind}">'
        f"{shown}{remove}<figcaption>{'⚠ ' if photo.findings else ''}{number}</figcaption></figure>"
    )


def refusals_html(faults: Sequence[str], subject_id: str) -> str:
    """What was left out of a subject's photos, and why."""
    items = "".join(f"<li>{escape(fault)}</li>" for fault in faults)
    if not items:
        return ""
    return f'<div role="alert" data-of="{escape(subject_id)}"><ul class="refused">{items}</ul></div>'


def still_told(subject_id: str, refused: str) -> Any:
    """What was left out is told until another subject is shown."""
    return gr.skip() if subject_id and f'data-of="{escape(subject_id)}"' in (refused or "") else ""


def samples_html(names: Sequence[str]) -> str:
    """The samples as buttons."""
    buttons = "".join(
        button(name.capitalize(), "sample", "", f"Try it with the sample {name}", name=name) for name in names
    )
    return f'<p>No photos at hand? Try it with a sample:</p><div class="actions">{buttons}</div>' if names else ""
