"""What Create's buttons do: values in, values out; everything else is done by ``studio``."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.errors import DoraError, StudioError
from dora_diffusion.studio.orders import RANDOM, Order, checked, decided
from dora_diffusion.studio.prompts import inserted, renamed
from dora_diffusion.studio.ui.choices import Choices, followed, label_of, target, value_of
from dora_diffusion.studio.ui.controls import number_in, words_of
from dora_diffusion.studio.ui.drawing import (
    STARTING,
    Step,
    alt_of,
    behind,
    check_writable,
    picture_step,
    state_line,
    told_of,
)
from dora_diffusion.studio.ui.line import Stopping, Ticket, Waiting, served
from dora_diffusion.studio.ui.own_orders import OwnOrders
from dora_diffusion.studio.ui.prompt_help import prompt_help

if TYPE_CHECKING:
    from dora_diffusion.studio.pictures import Picture
    from dora_diffusion.studio.subjects import Subject

NAME = "create-state"
# The fields of an order as the form has them, after the entry of what is drawn.
FIELDS = (
    *("prompt", "negative_prompt", "strength", "seed", "num_images", "num_inference_steps"),
    *("guidance_scale", "sampler", "width", "height"),
)
LEFT_OUT = ("guidance_scale", "width", "height")  # may be, and are text therefore
IDLE = state_line(NAME, "idle", "Press Generate. A picture is kept in the history below as soon as it is drawn.")


class CreateActions(OwnOrders):
    """The handlers of Create over one studio."""

    def entries(self, current: str | None = None) -> Choices:
        """What can be chosen; what is chosen now stays among them as long as it can be drawn."""
        found = self._entries.drawable()
        if current and current not in [value for _, value in found]:
            with suppress(StudioError):  # gone or in the trash: it is not offered any more, and drawing it says so
                subject = target(self._studio, current).subject
                if subject is None or subject.deleted is None:
                    found.append((label_of(self._studio, current), current))
        return found

    def choices(self, current: str | None) -> gr.Dropdown:
        """The entries of the list, for the clock."""
        return gr.Dropdown(choices=self.entries(current))

    def follow(self, subject_id: str, checkpoint: str, current: str | None) -> Any:
        """The entry for what was chosen on another tab; see ``followed``.

        Args:
            checkpoint: "job-3:200", or "" for the subject itself.
        """
        wanted = f"{subject_id}@{checkpoint.replace(':', '@')}" if subject_id and checkpoint else ""
        choices = self.entries(wanted)
        values = [value for _, value in choices]
        if wanted in values:
            return gr.Dropdown(choices=choices, value=wanted)
        return followed(values, subject_id, current) or gr.skip()

    def opened(self, value: str | None, prompt: str | None, written: str) -> tuple[Any, ...]:
        """What follows from another entry: a prompt for it where the user wrote none.

        Returns: prompt, the prompt that we wrote last.
        """
        try:
            subject = target(self._studio, value).subject
        except StudioError:
            return gr.skip(), gr.skip()
        mine = f"a photo of {subject.words if subject else 'a red teapot'} on the beach"
        return (mine, mine) if not (prompt or "").strip() or prompt == written else (gr.skip(), gr.skip())

    def renamed(self, value: str | None, prompt: str | None) -> Any:
        """The prompt about the chosen subject, where it was about another one."""
        try:
            subject = target(self._studio, value).subject
        except StudioError:
            return gr.skip()
        better = renamed(prompt or "", subject, self._others(subject)) if subject else prompt
        return gr.skip() if better == prompt else better

    def _others(self, subject: "Subject | None") -> "list[Subject]":
        """The subjects that are not chosen; the chosen one's namesakes are called as it is."""
        found = self._studio.subjects.list()
        return [one for one in found if subject is None or one.name.lower() != subject.name.lower()]

    def help(self, value: str | None, prompt: str) -> tuple[str, gr.Button]:
        """What is to be said of the prompt, and the button that mends it."""
        try:
            chosen = target(self._studio, value)
        except StudioError:
            return "", gr.Button(visible=False)
        html, mend = prompt_help(prompt or "", chosen.subject, chosen.base, self._others(chosen.subject))
        return html, gr.Button(mend, visible=bool(mend))

    def insert(self, value: str | None, prompt: str) -> str:
        """The prompt with the subject in it.

        Raises:
            StudioError: a base alone has no name.
        """
        subject = target(self._studio, value).subject
        if subject is None:
            raise StudioError("A base alone has no name to insert. Choose a subject first.")
        return inserted(renamed(prompt or "", subject, self._others(subject)), subject)

    def order(self, value: str | None, *form: Any) -> Order:
        """The order that the form says: prompt, negative prompt, strength, seed, count, steps, guidance, sampler,
        width, height.

        Raises:
            StudioError: something in it cannot be drawn.
        """
        chosen = target(self._studio, value)
        given: dict[str, Any] = dict(zip(FIELDS, form, strict=True))
        given |= {name: number_in(given[name]) for name in LEFT_OUT}
        return checked(
            Order(
                subject_id=chosen.subject.id if chosen.subject else None,
                base=chosen.base,
                job_id=chosen.job_id,
                step=chosen.step,
                **given,
            )
        )

    def draw(self, request: gr.Request, *form: Any) -> Iterator[tuple[Any, ...]]:
        """Draw, and tell how far it is.

        Yields: files with their words for the gallery, the line on how far it is, the seed of the first picture, the
            stop button.

        Raises:
            StudioError: the order cannot be drawn.
        """
        try:
            check_writable(self._studio)
            order = decided(self.order(*form))
            yield [], state_line(NAME, "waiting", STARTING), order.seed, gr.Button(interactive=True)
            yield from self._followed(order, str(request.session_hash))
        except Exception as error:
            words = str(error) if isinstance(error, DoraError) else "Not drawn"
            yield gr.skip(), state_line(NAME, "failed", words), gr.skip(), gr.Button(interactive=False)
            raise

    def _followed(self, order: Order, page: str) -> Iterator[tuple[Any, ...]]:
        drawn: list[Picture] = []
        began: list[float] = []  # when its turn came

        def work(ticket: Ticket, tell: Callable[[Any], None]) -> None:
            began.append(time.monotonic())
            for picture in self._studio.pictures.draw(order, lambda done, all_: tell(Step(done, all_)), ticket.stop):
                tell(picture)

        for event in served(self._line, page, work):
            if isinstance(event, Waiting):
                yield gr.skip(), state_line(NAME, "waiting", behind(event.ahead)), gr.skip(), gr.skip()
            elif isinstance(event, Stopping):
                yield gr.skip(), state_line(NAME, "working", "Stopping after this step"), gr.skip(), gr.skip()
            elif isinstance(event, Step):
                words = picture_step(event, order.num_images)
                yield gr.skip(), state_line(NAME, "working", words, event), gr.skip(), gr.skip()
            else:
                drawn.append(event)
                yield shown(drawn), gr.skip(), gr.skip(), gr.skip()
        words = told_of(drawn, time.monotonic() - began[0] if began else 0.0)
        is_whole = len(drawn) == order.num_images
        line = state_line(NAME, "done", words) if is_whole else state_line(NAME, "stopped", f"Stopped. {words}")
        yield gr.skip(), line, gr.skip(), gr.Button(interactive=False)

    def read(self, path: str | None) -> tuple[Any, ...]:
        """The form filled in from a picture's own settings.

        Returns: the form, notes as HTML text lines, the emptied field of the file.

        Raises:
            StudioError: the file says nothing of how it was made.
        """
        if not path:
            raise StudioError("Choose a PNG picture first.")
        order, notes = self._studio.pictures.read(Path(path))
        return (*self.form_of(order), notes)

    def form_of(self, order: Order) -> tuple[Any, ...]:
        """The values of the form that say this order; an entry that cannot be drawn here leaves the chosen one."""
        value = value_of(order)
        choices = self.entries(value)
        known = value in [entry for _, entry in choices]
        return (
            gr.Dropdown(choices=choices, value=value) if known else gr.skip(),
            *(words_of(getattr(order, name)) if name in LEFT_OUT else getattr(order, name) for name in FIELDS),
        )

    def reuse(self, picture_id: int) -> tuple[Any, ...]:
        """The form of a picture of the history, and notes on what of it is not here any more.

        Raises:
            StudioError: the picture is not there any more.
        """
        order, notes = self._studio.pictures.again(picture_id)
        return (*self.form_of(replace(order, num_images=1)), notes)


def random_seed() -> int:
    """What the seed field says for: another one each time."""
    return RANDOM


def last_seed(seed: int | None) -> Any:
    """The seed that was drawn last, or what is in the field."""
    return gr.skip() if seed is None else seed


def shown(pictures: "list[Picture]") -> list[tuple[str, str]]:
    """Files and words for a gallery; files, so that a download has the settings inside."""
    return [(str(picture.path), alt_of(picture)) for picture in pictures]
