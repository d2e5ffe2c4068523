"""Subjects as cards: an ordinary list, each with its picture, its words, and its state as a sign and a word."""

import os
import time
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from dora_diffusion.studio.ui.html import button, likeness_words, picture
from dora_diffusion.studio.ui.panel import SIGNS

if TYPE_CHECKING:
    from dora_diffusion.studio.jobs import Job
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import Subject

PAGE = 24
WORDS = {
    "draft": "not taught yet",
    "queued": "waits for its turn",
    "starting": "starting",
    "running": "in training",
    "saving": "being saved",
    "done": "taught",
    "failed": "failed",
    "cancelled": "stopped",
    "interrupted": "interrupted",
}
_MEDIA = ("photos", "thumbs", "pictures")
_SIZES_KEPT_S = 60.0


class Sizes:
    """What subjects take on the disk. Adding it up reads folders, so a result is kept for a minute."""

    def __init__(self, studio: "Studio"):
        self._home = studio.home
        self._known: dict[tuple[str, ...], tuple[float, int]] = {}

    def of(self, subject_id: str, job_ids: list[str]) -> int:
        """Bytes of a subject's photos, trainings and pictures."""
        key = (subject_id, *job_ids)
        at, size = self._known.get(key, (0.0, 0))
        if time.monotonic() - at > _SIZES_KEPT_S or not at:
            folders = [self._home.path_of("subject", subject_id), *(self._home.path_of("job", job) for job in job_ids)]
            folders.extend(self._home.media / kind / subject_id for kind in _MEDIA)
            size = sum(_bytes(folder) for folder in folders)
            self._known[key] = time.monotonic(), size
        return size


def cards_html(studio: "Studio", sizes: Sizes, chosen: str, page: int) -> str:
    """HTML of a page of all subjects; what to do first where there is none."""
    subjects = studio.subjects.list()
    if not subjects:
        return empty_html(studio)
    pages = (len(subjects) + PAGE - 1) // PAGE
    page = min(max(0, page), pages - 1)
    cards = "".join(_card(studio, sizes, each, each.id == chosen) for each in subjects[page * PAGE : (page + 1) * PAGE])
    return f'{_pager(page, pages, len(subjects))}<ul class="cards" data-count="{len(subjects)}">{cards}</ul>'


def empty_html(studio: "Studio") -> str:
    """What a first visitor sees."""
    samples = "".join(button(f"Try the {name}", "sample", name=name) for name in studio.subjects.samples())
    return (
        '<div class="empty" id="subjects-empty"><p>No subjects yet. A subject is one thing that a model learns from '
        "a few photos: a teapot, a dog, a person.</p>"
        f'<p class="acts">{button("Teach a subject", "teach", "primary")}{samples}</p></div>'
    )


def _card(studio: "Studio", sizes: Sizes, subject: "Subject", is_chosen: bool) -> str:
    jobs = studio.jobs.of_subject(subject.id)
    state = jobs[0].state if jobs else "draft"
    photos = studio.subjects.photos(subject.id)
    cover = (
        picture(photos[0].thumb, f"a photo of {subject.name}") if photos else '<span class="no-cover">no photos</span>'
    )
    facts = " · ".join(
        filter(None, (_when(jobs), _likeness(jobs), size_words(sizes.of(subject.id, [job.id for job in jobs]))))
    )
    current = ' aria-current="true"' if is_chosen else ""
    return (
        f'<li class="subject-card" data-subject="{escape(subject.id)}" data-state="{state}"{current}>'
        f'<div class="cover">{cover}</div><div class="about"><h3>{escape(subject.name)}</h3>'
        f"<p>{escape(subject.words)}, {escape(subject.base)}</p>"
        f'<p class="state"><span aria-hidden="true">{SIGNS[state]}</span> {WORDS[state]}</p>'
        f'<p class="quiet">{escape(facts)}</p>'
        f"<p class='acts'>{button('Open', 'open', '', f'Open {subject.name}', id=subject.id)}</p></div></li>"
    )


def _when(jobs: "list[Job]") -> str:
    ended = next((job.ended for job in jobs if job.state == "done" and job.ended), None)
    return f"taught {datetime.fromtimestamp(ended):%d %b %Y}" if ended else ""


def _likeness(jobs: "list[Job]") -> str:
    likeness = next((job.likeness for job in jobs if job.likeness is not None), None)
    return "" if likeness is None else f"likeness {likeness_words(likeness)}"


def _pager(page: int, pages: int, count: int) -> str:
    if pages == 1:
        return ""
    newer = button("← Newer", "page", page=str(page - 1)) if page else ""
    older = button("Older →", "page", page=str(page + 1)) if page + 1 < pages else ""
    words = f"Page {page + 1} of {pages} · {count} subjects"
    return f'<nav class="pager" aria-label="Pages of subjects">{newer}<span>{words}</span>{older}</nav>'


def size_words(size: int) -> str:
    """Bytes as people say them: "340 kB", "12.4 MB", in one line."""
    if size < 1_000_000:
        return f"{max(1, round(size / 1000))}\u00a0kB"
    return f"{size / 1e6:.1f}\u00a0MB" if size < 1_000_000_000 else f"{size / 1e9:.2f}\u00a0GB"


def _bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:  # a training may be tidying up meanwhile
                continue
    return total
