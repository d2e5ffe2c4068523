"""Above all tabs: what this is, that nothing leaves it, and what runs, in one strip with its buttons."""

import os
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.studio.ui import panel
from dora_diffusion.studio.ui.html import asked, button
from dora_diffusion.studio.ui.html import panel as html_panel
from dora_diffusion.studio.ui.shared import PROMPT, SLOW_S, Shared, called, find

if TYPE_CHECKING:
    from dora_diffusion.studio.jobs import Job
    from dora_diffusion.studio.studio import Studio

SHOWN_IN_LINE = 3
LOOKED_BACK = 20  # trainings, of which one that ended badly is still told
NEWS_S = 12 * 3600.0
READ_ONLY = (
    "Another studio already uses this folder. This one only shows what happens there: use the other one's page, or end "
    "it, and this one takes over."
)
_ANNOUNCER = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite');"
# A page that is not looked at is slowed down by its browser: then nothing can be said.
_CONNECTION = f"""
element.setAttribute('role', 'status');
const hear = () => {{ window.studioHeard = Date.now(); }};
hear();
document.addEventListener('visibilitychange', hear);
setInterval(() => {{
  const gone = !document.hidden && Date.now() - window.studioHeard > {1000 * (SLOW_S + 7)};
  const words = gone ? 'Not connected to the studio. Trainings go on; start the studio again to see them.' : '';
  if (element.textContent.trim() !== words) element.textContent = words;
  element.dataset.gone = gone;
}}, 1000);
"""


def build_header(studio: "Studio", shared: Shared) -> None:
    """Title, privacy line, badge, banner and job strip; the strip's buttons work on every tab."""
    gr.HTML(title(), elem_id="title")
    note = gr.HTML(elem_id="banner")
    gr.HTML(elem_id="connection", js_on_load=_CONNECTION)
    strip = html_panel(elem_id="strip")
    announcer = gr.HTML(elem_id="announcer", js_on_load=_ANNOUNCER)

    def name_of(subject_id: str) -> str:
        return called(find(studio, subject_id))

    def look() -> tuple[str, str, str]:
        jobs = studio.jobs.current()
        # The end of a training is news too, though the strip has moved on: the newest job tells it.
        told = jobs[0] if jobs else next(iter(studio.jobs.list(limit=1)), None)
        spoken = panel.announcement(told, name_of(told.subject_id)) if told else ""
        bad = None if jobs else needing(studio.jobs.list(limit=LOOKED_BACK), time.time())
        return strip_html(jobs, name_of, bad), spoken, banner(studio.is_read_only)

    def act(event: gr.EventData) -> tuple[Any, Any]:
        return do(studio, shared, asked(event))

    shared.on_tick(look, outputs=[strip, announcer, note])
    shared.then_tick(strip.click(shared.plain(act), None, [shared.tabs, shared.subject], **PROMPT))


def do(studio: "Studio", shared: Shared, wanted: dict[str, str]) -> tuple[Any, Any]:
    """What a job's button says: the values for the tabs and for the chosen subject.

    Raises:
        StudioError: the job or the subject is none, or its state does not allow it.
    """
    what, job_id = wanted.get("do"), wanted.get("job", "")
    subject: Any = gr.skip()
    tab: Any = gr.skip()
    if what == "view":
        subject, tab = studio.jobs.get(job_id).subject_id, shared.go("teach")
    elif what == "create":
        subject, tab = studio.subjects.get(wanted.get("subject", "")).id, shared.go("create")
    elif what == "cancel":
        studio.jobs.cancel(job_id)
    elif what == "resume":
        studio.jobs.resume(job_id)
    elif what == "up":
        studio.jobs.move_up(job_id)
    elif what == "remedy":
        studio.jobs.apply(job_id, wanted.get("remedy", ""))
    return tab, subject


def title() -> str:
    """HTML of the title and the privacy line."""
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    badge = "● Offline: works without a network" if offline else "○ Goes online only for a download you ask for"
    return (
        '<div class="title"><h1>DoRA Studio</h1>'
        "<p>Teach a model your subject from a few photos. Nothing leaves this computer.</p></div>"
        f'<p id="badge" class="badge" data-offline="{str(offline).lower()}">{badge}</p>'
    )


def banner(read_only: bool) -> str:
    """HTML of the banner that a second studio in one folder shows, until the first one ends."""
    return f'<p role="note" class="note" data-read-only="true">{READ_ONLY}</p>' if read_only else ""


def needing(jobs: "Sequence[Job]", now: float) -> "Job | None":
    """The newest training that failed or was interrupted in the last hours, and after which its subject has no other.

    Args:
        jobs: the newest first.
        now: UTC seconds.
    """
    seen: set[str] = set()
    for job in jobs:
        is_newest = job.subject_id not in seen
        seen.add(job.subject_id)
        is_news = job.ended is not None and now - job.ended < NEWS_S
        if is_newest and is_news and job.state in ("failed", "interrupted"):
            return job
    return None


def strip_html(jobs: "list[Job]", name_of: Callable[[str], str], bad: "Job | None" = None) -> str:
    """What runs, and who waits.

    Args:
        jobs: the active ones, then the queued ones.
        name_of: a subject's name by its id; asked for those only that are shown.
        bad: where nothing runs, the training that wants to be looked at.
    """
    if not jobs and bad is not None:
        return _ended_badly(bad, name_of(bad.subject_id))
    if not jobs:
        return '<p id="strip-line" class="state-line idle" data-state="none">Nothing is being taught right now.</p>'
    shown = [job for job in jobs if job.is_active] or jobs[:1]
    line = [job for job in jobs if job not in shown]
    parts = [_running(job, name_of(job.subject_id), f"strip-{number}") for number, job in enumerate(shown)]
    parts.extend(_in_line(job, name_of(job.subject_id)) for job in line[:SHOWN_IN_LINE])
    if len(line) > SHOWN_IN_LINE:
        parts.append(f'<p class="quiet">and {len(line) - SHOWN_IN_LINE} more in line</p>')
    return "".join(parts)


def _running(job: "Job", name: str, prefix: str) -> str:
    elem_id = "strip-line" if prefix == "strip-0" else f"{prefix}-line"
    device = f' <span class="quiet">on {escape(job.device)}</span>' if job.device and job.is_active else ""
    view = button("View", "view", "", f"View the training of {name}", job=job.id)
    return (
        f'<div class="running"><div class="words">{panel.state_line(job, name, elem_id)}'
        f'<p class="numbers">{panel.numbers(job, prefix)}{device}</p></div>'
        f'<div class="actions">{view}{panel.buttons(job)}</div>{panel.bar(job, name)}</div>'
    )


def _ended_badly(job: "Job", name: str) -> str:
    view = button("View", "view", "", f"View the training of {name}", job=job.id)
    remedies = job.failure.remedies if job.failure else ()
    resume = "".join(
        button(remedy.label, "remedy", "primary", job=job.id, remedy=remedy.name)
        for remedy in remedies
        if remedy.name == "resume"
    )
    line = panel.state_line(job, name, "strip-line")
    return f'<div class="running"><div class="words">{line}</div><div class="actions">{view}{resume}</div></div>'


def _in_line(job: "Job", name: str) -> str:
    up = button("Move up", "up", "link", f"Move {name} up in the line", job=job.id) if job.position else ""
    remove = button("Remove", "cancel", "link", f"Take {name} out of the line", job=job.id)
    return (
        f'<p class="in-line" data-state="queued" data-job="{escape(job.id)}">'
        f"{panel.headline(job, name)} · {panel.waiting(job)} {up}{remove}</p>"
    )
