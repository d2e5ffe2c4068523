"""The right side of Teach: what the newest training of the subject does and did, while it does it."""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.ui import panel
from dora_diffusion.studio.ui.curve import likeness_curve, loss_curve
from dora_diffusion.studio.ui.first_run import first_run_html
from dora_diffusion.studio.ui.header import do
from dora_diffusion.studio.ui.html import asked, button, whole
from dora_diffusion.studio.ui.html import panel as html_panel
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared, called, find

if TYPE_CHECKING:
    from dora_diffusion.studio.jobs import Job
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import Subject

EMPTY = (
    '<p id="job-line" class="state-line" data-state="none">Nothing is taught yet</p>'
    "<ol class='how'><li>Add photos of one thing, person or animal.</li><li>Say what it is.</li>"
    "<li>Press Train, and watch it being learnt here.</li></ol>"
)
DRAFT = (
    '<p id="job-line" class="state-line" data-state="draft" data-subject="{id}">'
    '<span class="sign" aria-hidden="true">○</span> {name} is ready to be taught</p>'
    '<p class="quiet">{next}</p>'
)


def build_progress(studio: "Studio", shared: Shared) -> None:
    """The panel: state, numbers, what can be done, curves, previews, log."""
    job_panel = html_panel(EMPTY, elem_id="job")
    choice = html_panel(elem_id="teach-choice")
    curves = gr.HTML(elem_id="teach-curves")
    previews = gr.HTML(elem_id="teach-previews")
    with gr.Accordion("Log", open=False, elem_id="teach-log", visible=False) as log_part:
        log = gr.HTML(elem_id="teach-log-text")

    def look(subject_id: str) -> tuple[Any, ...]:
        subject = find(studio, subject_id)
        if subject is None:
            return EMPTY + first_run_html(studio), "", "", "", gr.Accordion(visible=False), ""
        job = next(iter(studio.jobs.of_subject(subject.id)), None)
        if job is None:
            return draft_html(subject), "", "", "", gr.Accordion(visible=False), ""
        return (
            job_html(job, called(subject)),
            choice_html(job, subject, studio.jobs.checkpoints(job.id)),
            curves_html(studio, job),
            previews_html(studio, job),
            gr.Accordion(visible=True),
            f'<pre class="log" tabindex="0">{escape(studio.jobs.log_tail(job.id)) or "Nothing yet."}</pre>',
        )

    def act(event: gr.EventData) -> tuple[Any, Any, Any]:
        wanted = asked(event)
        tab, subject = do(studio, shared, wanted)
        if wanted.get("do") == "try":
            tab = shared.go("create")
        if wanted.get("do") == "use":
            job = studio.jobs.get(wanted.get("job", ""))
            step = whole(wanted.get("step"))
            if step is None and wanted.get("step"):
                raise StudioError("There is no such step. Choose one of those that are shown.")
            studio.subjects.choose(job.subject_id, job.id, step)
        tried = {"try": f"{wanted.get('job')}:{wanted.get('step')}", "create": shared.anew()}
        return tab, subject, tried.get(wanted.get("do", ""), gr.skip())

    shared.subject.change(lambda: "", None, shared.checkpoint, **QUIET)
    shared.on_tick(look, [shared.subject], [job_panel, choice, curves, previews, log_part, log])
    for part in (job_panel, choice):
        pressed = part.click(shared.plain(act), None, [shared.tabs, shared.subject, shared.checkpoint], **PROMPT)
        shared.then_tick(pressed)


def draft_html(subject: "Subject") -> str:
    """What is to be done before it can be taught."""
    steps = (
        "Choose how well, and press Train." if subject.class_noun else "Say what it is, choose how well, press Train."
    )
    return DRAFT.format(id=escape(subject.id), name=escape(panel.sentence(called(subject))), next=steps)


def job_html(job: "Job", name: str) -> str:
    """State line, bar, numbers, message, failure and buttons."""
    numbers = f'<p id="job-numbers" class="numbers">{panel.numbers(job, "job")}</p>'
    about = " · ".join(escape(words) for words in (job.settings, job.note) if words)
    return (
        f"{panel.state_line(job, name, 'job-line')}{panel.bar(job, name)}{numbers}"
        f'<p class="quiet">{about}</p>{panel.message(job)}{panel.failure_box(job)}{panel.actions(job)}'
    )


def choice_html(job: "Job", subject: "Subject", steps: list[int]) -> str:
    """Which checkpoint is used, which is the best so far, and the newest to be tried."""
    parts = []
    chosen = subject.chosen_step if subject.chosen_job == job.id else None
    in_use = job.total if chosen is None and job.state == "done" else chosen  # left to itself, it is the last step
    if job.best_step is not None:
        if in_use == job.best_step:
            use = "<b>in use</b>"
        elif job.best_step in steps:
            use = button("Use this one", "use", "", f"Step {job.best_step}", job=job.id, step=str(job.best_step))
        else:
            use = ""
        so_far = "" if job.state == "done" else " so far"
        parts.append(f'<p data-best="{job.best_step}">★ Most like your photos{so_far}: step {job.best_step} {use}</p>')
    if chosen is not None and job.state == "done":
        last = button("Use the last step", "use", "link", job=job.id, step="")
        parts.append(f'<p class="quiet">Pictures are made with step {chosen}. {last}</p>')
    if steps and job.state != "done":
        newest = button("Try it now", "try", "", f"Step {steps[-1]}", job=job.id, step=str(steps[-1]))
        parts.append(f"<p>Newest checkpoint: step {steps[-1]} {newest}</p>")
    return f'<div class="choice">{"".join(parts)}</div>' if parts else ""


def curves_html(studio: "Studio", job: "Job") -> str:
    """Loss and likeness, each under its name."""
    loss = loss_curve(studio.jobs.losses(job.id), job.total)
    alike = likeness_curve(studio.jobs.likeness(job.id), job.total, job.best_step)
    parts = []
    if alike:
        parts.append(f"<h3>Likeness</h3><p class='quiet'>How much the previews look like your photos.</p>{alike}")
    if loss:
        parts.append(f"<h3>Loss</h3><p class='quiet'>It jumps about; what counts is that it falls at first.</p>{loss}")
    return "".join(parts)


def previews_html(studio: "Studio", job: "Job") -> str:
    """The photos, then what was drawn at each step."""
    photos = [photo.thumb for photo in studio.subjects.photos(job.subject_id)]
    strip = panel.preview_strip(photos, studio.jobs.previews(job.id), job.best_step)
    return f"<h3>Previews</h3>{strip}" if strip else ""
