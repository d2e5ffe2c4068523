"""One subject in full: its photos, what it was trained with, how that went, and its checkpoints."""

from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.config.files import load_yaml
from dora_diffusion.errors import ConfigError
from dora_diffusion.studio.observe import ENDED
from dora_diffusion.studio.ui.cards import WORDS
from dora_diffusion.studio.ui.choices import checkpoints
from dora_diffusion.studio.ui.curve import likeness_curve, loss_curve
from dora_diffusion.studio.ui.html import button, likeness_words, picture
from dora_diffusion.studio.ui.panel import SIGNS, actions, failure_box, preview_strip, sentence, training
from dora_diffusion.studio.ui.tables import table

if TYPE_CHECKING:
    from dora_diffusion.studio.jobs import Job
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import Subject

SHOWN_JOBS = 20
# The settings that people ask for first; besides them those that were changed.
_ALWAYS = ("adapter.kind", "adapter.rank", "optim.learning_rate", "run.max_train_steps", "data.resolution", "run.seed")


def detail_html(studio: "Studio", subject: "Subject", asks: str = "") -> str:
    """HTML of a subject; ``asks``: the training whose removal is to be confirmed."""
    jobs = studio.jobs.of_subject(subject.id)
    job = next((job for job in jobs if job.id == subject.chosen_job), jobs[0] if jobs else None)
    return "".join(
        (
            _head(studio, subject),
            _photos(studio, subject),
            _curves(studio, subject, job) if job else '<p class="empty">It has not been taught yet.</p>',
            _checkpoints(studio, subject),
            _trainings(jobs, asks),
            _settings(studio, job) if job else "",
        )
    )


def _head(studio: "Studio", subject: "Subject") -> str:
    is_ready = studio.subjects.adapter(subject.id) is not None
    make = button("Make a picture", "create", "primary", subject=subject.id) if is_ready else ""
    export = button("Export", "export", subject=subject.id) if is_ready else ""
    label = "Teach again" if studio.jobs.of_subject(subject.id) else "Teach"
    again = button(label, "retrain", "" if is_ready else "primary", f"{label}: {subject.name}", subject=subject.id)
    return (
        f'<h2 id="subject-name" data-subject="{escape(subject.id)}">{escape(subject.name)}</h2>'
        f'<p class="quiet">In prompts: <b>{escape(subject.words)}</b> · base: {escape(subject.base)} · made '
        f'{datetime.fromtimestamp(subject.created):%d %b %Y}</p><p class="acts">{make}{again}{export}</p>'
    )


def _photos(studio: "Studio", subject: "Subject") -> str:
    photos = studio.subjects.photos(subject.id)
    if not photos:
        return '<p class="empty">It has no photos.</p>'
    items = "".join(
        f"<li>{picture(photo.thumb, f'photo {number} of {subject.name}')}</li>"
        for number, photo in enumerate(photos, 1)
    )
    return f'<h3>Photos</h3><ul class="tiles small">{items}</ul>'


def _curves(studio: "Studio", subject: "Subject", job: "Job") -> str:
    losses, likeness = studio.jobs.losses(job.id), studio.jobs.likeness(job.id)
    curves = _named("Loss", loss_curve(losses, job.total))
    curves += _named("Likeness to the photos", likeness_curve(likeness, job.total, job.best_step))
    photos = [photo.thumb for photo in studio.subjects.photos(subject.id)]
    previews = preview_strip(photos, studio.jobs.previews(job.id), job.best_step)
    return f"<h3>How it went</h3>{curves}{previews}" if curves or previews else ""


def _named(name: str, curve: str) -> str:
    return f'<p class="curve-name">{name}</p>{curve}' if curve else ""


def _checkpoints(studio: "Studio", subject: "Subject") -> str:
    found = checkpoints(studio, subject.id)
    if not found:
        return ""
    likeness = {job.id: dict(studio.jobs.likeness(job.id)) for job, _ in found}
    used = _used(subject, found)
    rows = "".join(_checkpoint(job, step, likeness[job.id].get(step), used == (job.id, step)) for job, step in found)
    headers = ("Training", "Step", "Likeness", "Use")
    return "<h3>Checkpoints</h3>" + table("subject-checkpoints", "Checkpoints", headers, rows)


def _used(subject: "Subject", found: "list[tuple[Job, int]]") -> tuple[str, int] | None:
    """Which checkpoint stands for the subject: the chosen one, else the end of its newest finished training."""
    if subject.chosen_job is not None and subject.chosen_step is not None:
        return subject.chosen_job, subject.chosen_step
    meant = [
        job.id for job, _ in found if job.id == subject.chosen_job or (not subject.chosen_job and job.state == "done")
    ]
    return next(((job.id, step) for job, step in found if meant and job.id == meant[0]), None)


def _checkpoint(job: "Job", step: int, likeness: float | None, is_used: bool) -> str:
    use = button("Use this one", "use", "", f"Step {step} of {training(job)}", job=job.id, step=str(step))
    best = " ★ best" if step == job.best_step else ""
    return (
        f'<tr data-step="{step}" data-used="{str(is_used).lower()}" data-job="{escape(job.id)}">'
        f"<td>{sentence(training(job))}</td><td>{step}{best}</td>"
        f"<td>{'' if likeness is None else likeness_words(likeness)}</td>"
        f"<td>{'✓ in use' if is_used else use}</td></tr>"
    )


def _trainings(jobs: "list[Job]", asks: str) -> str:
    if not jobs:
        return ""
    items = "".join(_training(job, job.id == asks) for job in jobs[:SHOWN_JOBS])
    more = f"<p>and {len(jobs) - SHOWN_JOBS} older ones</p>" if len(jobs) > SHOWN_JOBS else ""
    return f'<h3>Trainings</h3><ul class="trainings">{items}</ul>{more}'


def _training(job: "Job", asks: bool) -> str:
    said = "" if job.failure or not job.message else f'<p class="quiet">{escape(sentence(job.message))}</p>'
    when = f"{datetime.fromtimestamp(job.created):%d %b %Y, %H:%M}"
    # "Make a picture" stands at the top already: here it would be the same for each training.
    buttons = actions(job) if job.state != "done" else ""
    words = f"{WORDS[job.state]} · step {job.step} of {job.total} · {escape(job.settings)} · {when}"
    return (
        f'<li data-job="{escape(job.id)}" data-state="{job.state}"><p>'
        f'<span aria-hidden="true">{SIGNS[job.state]}</span> '
        f"<b>{sentence(training(job))}</b> {words}</p>{said}{failure_box(job)}{buttons}{_removal(job, asks)}</li>"
    )


def _removal(job: "Job", asks: bool) -> str:
    """Of a training that has ended: a button that frees its checkpoints, at the second press."""
    if job.state not in ENDED:
        return ""
    if not asks:
        remove = button("Remove", "remove", "link", f"Remove {training(job)} and its checkpoints", job=job.id)
        return f'<p class="acts">{remove}</p>'
    sure = button("Remove it", "remove-yes", "stop", f"Remove {training(job)} and its checkpoints for good", job=job.id)
    return f'<p class="acts">Its checkpoints go with it. {sure}{button("Keep it", "keep", job=job.id)}</p>'


def _settings(studio: "Studio", job: "Job") -> str:
    try:
        config = load_yaml(TrainConfig, studio.home.path_of("job", job.id) / "config.yaml")
    except (ConfigError, OSError):
        return ""
    usual = TrainConfig(preset=config.preset) if config.preset else TrainConfig()
    # What the studio sets itself (folders, previews, how often it saves) is nothing that anybody changed.
    changed = {name for name in job.changed if value_at(config, name) != value_at(usual, name)}
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_said(value_at(config, name)))}</td>'
        f"<td>{'changed' if name in changed else ''}</td></tr>"
        for name, _ in walk(TrainConfig)
        if name in _ALWAYS or name in changed
    )
    headers = ("Setting", "Value", "Against the preset")
    return f"<h3>Settings of {training(job)}</h3>" + table("subject-settings", "Settings", headers, rows)


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return {"None": "automatic", "True": "yes", "False": "no"}.get(str(value), str(value))
