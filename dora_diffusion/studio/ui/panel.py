"""What the page says about a training: one line with a state that machines can read, a bar, numbers and the curve."""

from collections.abc import Sequence
from html import escape

from dora_diffusion.studio.jobs import JobStatus, State
from dora_diffusion.studio.subjects import Subject
from dora_diffusion.studio.ui.curve import loss_curve

EMPTY = '<p id="job-line" data-state="none">Nothing is trained yet. Add photos, say what it is, press Train.</p>'

# The sign is beside the word, never instead of it.
HEADLINES: dict[State, str] = {
    "new": "○ {name} is ready to be trained",
    "starting": "◔ Starting {name}",
    "preparing": "◔ Preparing {name}",
    "training": "▶ Training {name}",
    "saving": "▶ Saving {name}",
    "done": "✓ {name} is trained",
    "stopped": "■ Training of {name} was stopped",
    "failed": "✗ Training of {name} failed",
    "interrupted": "✗ Training of {name} was interrupted",
}
ADVICE: dict[State, str] = {
    "starting": "Loading takes some seconds.",
    "done": "Make a picture below.",
    "stopped": "Press Train to go on.",
}


def job_panel(subject: Subject, status: JobStatus, losses: Sequence[tuple[int, float]]) -> str:
    """HTML of the whole panel; every word that came from a user, a file or the trainer is escaped."""
    name = escape(f"{subject.trigger} {subject.class_noun}")
    headline = HEADLINES[status.state].format(name=name)
    parts = [f'<p id="job-line" data-state="{status.state}" data-subject="{subject.id}">{headline}</p>']
    if status.state != "new":
        parts.append(_bar(status))
        parts.append(f'<p id="job-numbers">{_numbers(status)}</p>')
    parts.extend(f'<p class="job-message">{escape(words)}</p>' for words in _words(status) if words)
    parts.append(loss_curve(losses, status.max_train_steps))
    return "".join(parts)


def time_left(seconds: float) -> str:
    """Seconds as people say them: '40 s', '3 min', '2 h 5 min'."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bar(status: JobStatus) -> str:
    percent = 100 * min(1.0, status.step / status.max_train_steps) if status.max_train_steps else 0.0
    return (
        '<div class="job-bar" role="progressbar" aria-label="Training" aria-valuemin="0" '
        f'aria-valuemax="{status.max_train_steps}" aria-valuenow="{status.step}">'
        f'<div style="width:{percent:.1f}%"></div></div>'
    )


def _numbers(status: JobStatus) -> str:
    words = [f'Step <span id="job-step">{status.step}</span> of {status.max_train_steps}']
    if status.loss is not None:
        words.append(f'loss <span id="job-loss">{status.loss:.4f}</span>')
    if status.state == "training":
        left = "measuring the time" if status.seconds_left is None else f"{time_left(status.seconds_left)} left"
        words.append(f'<span id="job-left">{left}</span>')
    return " · ".join(words)


def _words(status: JobStatus) -> list[str]:
    if status.is_active and status.stop_asked:
        return ["Asked to stop: the trainer saves its work and leaves. Not gone after a minute? Press Stop again."]
    return [status.message[:1].upper() + status.message[1:], ADVICE.get(status.state, "")]
