"""What the page says about a training: a line with a state that machines can read, a bar, numbers, what can be done."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from dora_diffusion.studio.ui.html import button, likeness_words, picture

if TYPE_CHECKING:
    from dora_diffusion.studio.jobs import Job, Preview

SOON_S = 5.0  # the last words of the training before take as long
# The sign is beside the word, never instead of it.
SIGNS = {
    "draft": "○",
    "queued": "◷",
    "starting": "◔",
    "running": "▶",
    "saving": "▶",
    "done": "✓",
    "failed": "✗",
    "cancelled": "■",
    "interrupted": "✗",
}
HEADLINES = {
    "draft": "{name} is ready to be taught",
    "queued": "{name} waits for its turn",
    "starting": "Preparing to teach {name}",
    "running": "Learning {name}",
    "saving": "Saving {name}",
    "done": "{name} is ready",
    "failed": "Learning {name} failed",
    "cancelled": "Learning {name} was stopped",
    "interrupted": "Learning {name} was interrupted",
}
ADVICE = {
    "starting": "Loading the model takes some seconds.",
    "cancelled": "What was learnt is kept. You can go on from there.",
    "interrupted": "The computer or the trainer stopped. Nothing that was saved is lost; you can go on from there.",
}
CLASS_IMAGES = "Class images are pictures of other things of its kind, so that the model does not forget those."
NO_NEWS_S = 120.0


def training(job: "Job") -> str:
    """What people call a training, beside its subject's name; its id is for programs."""
    return f"training {job.ordinal}"


def headline(job: "Job", name: str) -> str:
    """HTML: sign and words of the state."""
    words = HEADLINES[job.state].format(name=escape(name))
    return f'<span class="sign" aria-hidden="true">{SIGNS[job.state]}</span> {words}'


def state_line(job: "Job", name: str, elem_id: str) -> str:
    """The line that tells people and machines what the job does."""
    return (
        f'<p id="{elem_id}" class="state-line" data-state="{job.state}" data-job="{escape(job.id)}" '
        f'data-subject="{escape(job.subject_id)}">{headline(job, name)}</p>'
    )


def bar(job: "Job", name: str) -> str:
    """The progress bar: of the class images while they are made, then of the steps."""
    if job.class_images is not None:
        what, unit, (done, of) = "Making class images for", "image", job.class_images
    else:
        what, unit, done, of = "Learning", "step", job.step, job.total
    total = max(1, of)
    percent = 100 * min(1.0, done / total)
    return (
        f'<div class="bar" role="progressbar" aria-label="{what} {escape(name)}" aria-valuemin="0" '
        f'aria-valuemax="{total}" aria-valuenow="{min(done, total)}" '
        f'aria-valuetext="{unit} {done} of {of}"><div style="width:{percent:.1f}%"></div></div>'
    )


def numbers(job: "Job", prefix: str) -> str:
    """Step, loss, likeness, time left, memory: what is known of them, in one line."""
    if job.state == "queued":
        return waiting(job)
    if job.class_images is not None:
        done, total = job.class_images
        return f'<span class="number" data-class-images="{done}">Making class images: {done} of {total}</span>'
    words = [f'Step <span id="{prefix}-step">{job.step}</span> of {job.total}']
    if job.loss is not None:
        words.append(f"loss {job.loss:.4f}")
    if job.likeness is not None:
        words.append(f"likeness {likeness_words(job.likeness)}")
    if job.state == "running":
        words.append("measuring the time" if job.seconds_left is None else f"{time_left(job.seconds_left)} left")
    if job.memory_gib is not None and job.is_active:
        words.append(f"{job.memory_gib:.1f} GiB")
    return " · ".join(f'<span class="number">{word}</span>' for word in words)


def waiting(job: "Job") -> str:
    """Where a queued job stands in the line, and when it is expected to start."""
    place = "Next in line" if not job.position else f"{ordinal(job.position + 1)} in line"
    soon = job.starts_in is not None and job.starts_in < SOON_S
    start = "" if job.starts_in is None else f", starts {'soon' if soon else f'in about {time_left(job.starts_in)}'}"
    return f'<span class="number">{place}{start}</span>'


def message(job: "Job") -> str:
    """What else is to be said of the job, as a paragraph or nothing."""
    if job.is_active and job.stop_asked:
        words = "Stopping: the trainer saves its work and leaves."
    elif job.class_images is not None:
        words = CLASS_IMAGES
    elif job.failure is not None:
        return ""  # the failure box says it
    else:
        # The trainer's own words say more of how a start goes than that it takes a while.
        said = [sentence(job.message), "" if job.message and job.state == "starting" else ADVICE.get(job.state, "")]
        words = " ".join(filter(None, said))
    return f'<p class="quiet">{escape(words)}</p>' if words else ""


def failure_box(job: "Job") -> str:
    """What went wrong, in plain words, and what can be done about it, each thing as a button."""
    if job.failure is None:
        return ""
    remedies = "".join(
        button(remedy.label, "remedy", "primary" if number == 0 else "", job=job.id, remedy=remedy.name)
        for number, remedy in enumerate(job.failure.remedies)
    )
    return (
        f'<div class="failure" role="group" aria-label="What went wrong" data-code="{escape(job.failure.code)}">'
        f'<p><span class="sign" aria-hidden="true">✗</span> {escape(sentence(job.failure.message))}</p>'
        f'<div class="actions">{remedies}</div></div>'
    )


def actions(job: "Job") -> str:
    """The buttons that the job's state allows, in a row of their own."""
    found = buttons(job)
    return f'<div class="actions">{found}</div>' if found else ""


def buttons(job: "Job") -> str:
    """The same, for a row that has others."""
    if job.is_active:
        stop = "" if job.stop_asked else button("Cancel", "cancel", "stop", "Cancel this training", job=job.id)
    elif job.state == "queued":
        up = button("Move up", "up", "", "Move this training up in the line", job=job.id) if job.position else ""
        stop = up + button("Remove", "cancel", "stop", "Take this training out of the line", job=job.id)
    else:
        stop = ""
    go_on = job.state in ("cancelled", "interrupted") and job.failure is None
    resume = button("Resume", "resume", "primary", "Go on with this training", job=job.id) if go_on else ""
    ready = button("Make a picture", "create", "primary", subject=job.subject_id) if job.state == "done" else ""
    return ready + resume + stop


def preview_strip(photos: Sequence[Path], previews: "Sequence[Preview]", best_step: int | None) -> str:
    """The photos first, then what the model drew at each step, the newest prompt of each; best marked."""
    if not previews:
        return ""
    cells = [_cell("Your photos", "".join(picture(photo, "one of your photos") for photo in photos[:4]))]
    steps: dict[int, list[Preview]] = {}
    for preview in previews:
        steps.setdefault(preview.step, []).append(preview)
    for step, drawn in sorted(steps.items()):
        title = f"★ Step {step}, closest" if step == best_step else f"Step {step}"
        cells.append(_cell(title, "".join(picture(each.path, f"step {step}: {each.prompt}") for each in drawn[:4])))
    return f'<div class="previews" tabindex="0" role="group" aria-label="Previews by step">{"".join(cells)}</div>'


def _cell(title: str, pictures: str) -> str:
    return f'<figure><figcaption>{escape(title)}</figcaption><div class="four">{pictures}</div></figure>'


def announcement(job: "Job | None", name: str) -> str:
    """What a screen reader is told: it changes with the state and with every tenth of the way, not more often."""
    if job is None:
        return ""
    words = HEADLINES[job.state].format(name=name)
    tenth = 10 * int(10 * job.step / max(1, job.total))
    return escape(f"{words}, {tenth} %" if job.state == "running" and tenth else words)


def time_left(seconds: float) -> str:
    """Seconds as people say them: '40 s', '3 min', '2 h 5 min'."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, …"""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def sentence(words: str) -> str:
    """``words`` with a capital letter in front."""
    return words[:1].upper() + words[1:]
