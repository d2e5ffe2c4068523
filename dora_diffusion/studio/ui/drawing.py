"""What a page says of an order that is being drawn: waiting behind others, picture 2 of 4, done, stopped, failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from dora_diffusion.errors import StudioError

if TYPE_CHECKING:
    from dora_diffusion.studio.pictures import Picture
    from dora_diffusion.studio.studio import Studio

# Orders that may stand in the line at once: each keeps a thread of the server. Any more wait in Gradio's own queue.
DRAW: dict[str, Any] = {
    "concurrency_id": "orders",
    "concurrency_limit": 16,
    "show_progress": "hidden",
    "api_visibility": "private",
}

DrawState = Literal["idle", "waiting", "working", "done", "stopped", "failed"]
SIGNS: dict[DrawState, str] = {
    "idle": "○",
    "waiting": "◔",
    "working": "▶",
    "done": "✓",
    "stopped": "■",
    "failed": "✗",
}


STARTING = "Starting (the first picture takes longer)"


def check_writable(studio: "Studio") -> None:
    """Raise StudioError where another studio has this folder: what was drawn here could not be kept."""
    if studio.is_read_only:
        raise StudioError("Another studio uses this folder, so this one only shows what is there. Use the other one.")


@dataclass(frozen=True)
class Step:
    """``done`` of ``total`` sampling steps, or of whatever is counted."""

    done: int
    total: int


def state_line(name: str, state: DrawState, words: str, step: Step | None = None, doing: str = "Drawing") -> str:
    """HTML of what happens to an order: a line, and a bar while there is something to count.

    Only a change of the state is spoken by a screen reader, not every step: for work that is under way, ``doing``.
    """
    line = (
        f'<p id="{name}-line" class="order-line" data-state="{state}">'
        f'<span aria-hidden="true">{SIGNS[state]}</span> {escape(words)}</p>'
    )
    spoken = f'<p class="sr-only" role="status">{escape(_spoken(state, words, doing))}</p>'
    return line + spoken + (_bar(step) if step else "")


def _spoken(state: DrawState, words: str, doing: str) -> str:
    return {"idle": "", "working": doing}.get(state, words)


def _bar(step: Step) -> str:
    percent = 100 * min(1.0, step.done / step.total) if step.total else 0.0
    return (
        '<div class="bar" role="progressbar" aria-label="Drawing" aria-valuemin="0" '
        f'aria-valuemax="{step.total}" aria-valuenow="{step.done}"><div style="width:{percent:.1f}%"></div></div>'
    )


def behind(ahead: int) -> str:
    """ "Waiting behind 2 orders"."""
    return f"Waiting behind {ahead} order{'s' if ahead != 1 else ''}"


def picture_step(step: Step, num_images: int) -> str:
    """ "Picture 2 of 4, step 10 of 25", from the steps of all pictures together."""
    each = max(1, step.total // max(1, num_images))
    number = min(num_images, max(0, step.done - 1) // each + 1)
    within = f"step {max(0, step.done - each * (number - 1))} of {each}"
    return f"Picture {number} of {num_images}, {within}" if num_images > 1 else within.capitalize()


def told_of(pictures: Sequence["Picture"], seconds: float) -> str:
    """ "2 pictures in 7.4 s, seeds 7 and 8"."""
    seeds = [picture.order.seed for picture in pictures]
    if not seeds:
        return "No picture was finished"
    if len(seeds) == 1:
        return f"1 picture in {seconds:.1f} s, seed {seeds[0]}"
    named = f"{seeds[0]} and {seeds[1]}" if len(seeds) == 2 else f"{seeds[0]} to {seeds[-1]}"
    return f"{len(seeds)} pictures in {seconds:.1f} s, seeds {named}"


def alt_of(picture: "Picture") -> str:
    """What a picture is to those who do not see it: its prompt and its seed."""
    return f"{picture.sent or picture.order.prompt}, seed {picture.order.seed}"
