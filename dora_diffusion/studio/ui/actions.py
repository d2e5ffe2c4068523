"""What the page's buttons do: values in, values out, everything else in ``studio``."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from dora_diffusion.errors import StudioError
from dora_diffusion.studio.jobs import Studio
from dora_diffusion.studio.pictures import Pictures
from dora_diffusion.studio.subjects import Subject
from dora_diffusion.studio.ui.panel import EMPTY, job_panel

QUALITIES = {"Quick": 120, "Standard": 300}
SHOWN_PICTURES = 24


class Actions:
    """The handlers of one page over one studio."""

    def __init__(self, studio: Studio, pictures: Pictures):
        self._studio = studio
        self._pictures = pictures
        self._training = threading.Lock()  # two pages may press Train at once

    def restore(self) -> tuple[Any, ...]:
        """The form of a page that was just opened: photos, noun, trigger, quality of the subject worked on last."""
        subject_id = self._studio.current()
        if subject_id is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        subject = self._studio.subject(subject_id)
        quality = next((name for name, steps in QUALITIES.items() if steps == subject.steps), gr.skip())
        photos = [str(photo) for photo in self._studio.shown_photos(subject_id)]
        return photos, subject.class_noun, subject.trigger, quality

    def tick(self, shown: dict[str, Any]) -> tuple[Any, ...]:
        """What is true now. ``shown`` is what this page got last: what did not change is not sent again.

        Returns: panel, train button, stop button, list of trained subjects, make button, shown.
        """
        subject_id = self._studio.current()
        panel, active = EMPTY, False
        if subject_id is not None:
            status = self._studio.status(subject_id)
            active = status.is_active
            panel = job_panel(self._studio.subject(subject_id), status, self._studio.losses(subject_id))
        trained = [(_label(subject), subject.id) for subject in self._studio.subjects() if subject.adapter is not None]
        now = {"panel": panel, "active": active, "trained": sorted(trained)}
        new = {name for name, value in now.items() if shown.get(name) != value}
        choices = gr.Dropdown(choices=trained, value=trained[0][1] if trained else None)
        can_make = gr.Button(interactive=bool(trained) and not active)
        return (
            panel if "panel" in new else gr.skip(),
            gr.Button(interactive=not active) if "active" in new else gr.skip(),
            gr.Button(interactive=active) if "active" in new else gr.skip(),
            choices if "trained" in new else gr.skip(),
            can_make if new & {"active", "trained"} else gr.skip(),
            now if new else gr.skip(),
        )

    def train(self, photos: Sequence[tuple[str, Any]] | None, noun: str, trigger: str, quality: str) -> None:
        """Train what the form says; the same form again goes on with the same subject.

        Raises:
            StudioError: see ``Studio.create_subject`` and ``Studio.start``.
        """
        if quality not in QUALITIES:
            raise StudioError(f"Quality is one of {', '.join(QUALITIES)}; got {quality!r}.")
        with self._training:
            self._studio.check_free()
            wanted = ([Path(photo) for photo, _ in photos or []], noun or "", trigger or "", QUALITIES[quality])
            subject_id = self._studio.find_subject(*wanted) or self._studio.create_subject(*wanted)
            self._pictures.release()
            self._studio.start(subject_id)

    def stop(self) -> None:
        """Stop the training that runs.

        Raises:
            StudioError: none does.
        """
        running = self._studio.running()
        if running is None:
            raise StudioError("Nothing is being trained, so there is nothing to stop.")
        self._studio.stop(running)

    def choose(self, subject_id: str | None) -> tuple[Any, ...]:
        """Prompt and pictures of the subject that was chosen."""
        if not subject_id:
            return "", []
        subject = self._studio.subject(subject_id)
        return f"a photo of {subject.trigger} {subject.class_noun} on the beach", self._shown(subject_id)

    def draw(
        self,
        subject_id: str | None,
        prompt: str,
        strength: float,
        seed: float,
        count: float,
        progress: Callable[..., Any] = gr.Progress(),  # noqa: B008 - Gradio reads this default to know where to report
    ) -> list[str]:
        """Draw, and return the files of all the subject's pictures, the newest first.

        Raises:
            StudioError: a training runs, no subject is chosen, or see ``Pictures.draw``.
        """
        busy = self._studio.running()
        if busy is not None:
            raise StudioError(
                f"{busy} is being trained and uses the machine. Make pictures when it is done or stopped."
            )
        if not subject_id:
            raise StudioError("Train a subject first; then it can be drawn.")
        if None in (strength, seed, count):
            raise StudioError("Strength, seed and the number of pictures must be numbers. Fill in the empty one.")
        subject = self._studio.subject(subject_id)
        progress(0, desc="Loading the model")
        self._pictures.draw(
            subject,
            prompt=prompt or "",
            strength=float(strength),
            seed=int(seed),
            num_images=int(count),
            on_step=lambda step, total: progress((step, total), desc="Drawing"),
        )
        return self._shown(subject_id)

    def _shown(self, subject_id: str) -> list[str]:
        return [str(path) for path in self._pictures.of(subject_id)[:SHOWN_PICTURES]]


def _label(subject: Subject) -> str:
    return f"{subject.trigger} {subject.class_noun} ({subject.id})"
