"""Export: a subject as a file for another program, proved by that program's own rules before it can be downloaded."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.config.ranks import DEFAULT_RANK
from dora_diffusion.errors import DoraError, StudioError
from dora_diffusion.studio.orders import MAX_STRENGTH
from dora_diffusion.studio.ui.choices import Choices, checkpoints, followed
from dora_diffusion.studio.ui.controls import choice
from dora_diffusion.studio.ui.drawing import DRAW, behind, check_writable, state_line
from dora_diffusion.studio.ui.export_html import earlier_html, formats_html, is_proved, proof_words, result_html
from dora_diffusion.studio.ui.html import asked, panel
from dora_diffusion.studio.ui.line import Stopping, Ticket, Waiting, served
from dora_diffusion.studio.ui.own_orders import OwnOrders
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared
from dora_diffusion.studio.workshop import StoppedError

if TYPE_CHECKING:
    from dora_diffusion.studio.exports import FormatNote
    from dora_diffusion.studio.studio import Studio

Parts = dict[str, Any]
NAME = "export-state"
IDLE = state_line(NAME, "idle", "The file is made, then read back by the rules of each program that it is for.")
EARLIER = state_line(NAME, "idle", "An earlier export:")
DOING = "Writing the file and proving it"
CURRENT = ""  # the checkpoint that stands for the subject
PRECISIONS = [("fp32, exact", "fp32"), ("fp16, half the size", "fp16"), ("bf16, half the size", "bf16")]
FORM = ("subject", "checkpoint", "format", "precision", "strength", "rank")


class ExportTab:
    """The tab that takes a subject away."""

    label = "Export"

    def build(self, studio: "Studio", shared: Shared) -> None:
        actions = ExportActions(studio, shared.line, shared.entries)
        formats = actions.formats(actions.first())
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320, elem_classes="card"):
                parts = _form(actions, formats)
            with gr.Column(scale=1, min_width=320, elem_classes="card"):
                parts["state"] = gr.HTML(IDLE, elem_id="export-state")
                parts["result"] = gr.HTML(elem_id="export-shown")
        with gr.Column(elem_classes="card"):
            gr.Markdown("## What each format is for")
            parts["table"] = gr.HTML(formats_html(formats, formats[0].name), elem_id="export-table")
        with gr.Column(elem_classes="card"):
            gr.Markdown("## Earlier exports")
            parts["earlier"] = panel(elem_id="export-list")
        parts["asks"] = gr.State("")
        _bind(actions, shared, parts)


def _form(actions: "ExportActions", formats: "list[FormatNote]") -> Parts:
    subjects = actions.subjects()
    parts: Parts = {}
    parts["subject"] = choice(
        subjects,
        value=actions.first(),
        elem_id="export-subject",
        label="Subject",
        info="Only what was taught can be exported.",
    )
    parts["checkpoint"] = choice(
        [("The one in use", CURRENT)],
        value=CURRENT,
        elem_id="export-checkpoint",
        label="Checkpoint",
    )
    parts["format"] = gr.Radio(
        labels(formats),
        value=formats[0].name,
        elem_id="export-format",
        label="Format",
        info="What each is, and what it lacks, is in the table below.",
    )
    with gr.Row():
        parts["precision"] = gr.Dropdown(
            PRECISIONS, value="fp32", elem_id="export-precision", label="Precision", filterable=False, min_width=140
        )
        parts["strength"] = gr.Slider(
            0,
            MAX_STRENGTH,
            value=1.0,
            step=0.05,
            elem_id="export-strength",
            label="Strength",
            info="Merged into the model.",
            visible=formats[0].takes_strength,
            min_width=160,
        )
        parts["rank"] = gr.Number(
            DEFAULT_RANK,
            elem_id="export-rank",
            label="Rank",
            info="Of the plain LoRA: more is nearer.",
            precision=0,
            minimum=1,
            visible=formats[0].takes_rank,
            min_width=140,
        )
    with gr.Row():
        parts["export"] = gr.Button("Export and prove", elem_id="export-button", variant="primary", min_width=140)
        parts["stop"] = gr.Button("Stop", elem_id="export-stop", variant="stop", interactive=False, min_width=100)
    return parts


def labels(formats: "list[FormatNote]") -> Choices:
    """The formats and whom each is for."""
    return [(f"{note.name}, for {', '.join(note.readers) or 'no program on this base'}", note.name) for note in formats]


def _bind(actions: "ExportActions", shared: Shared, parts: Parts) -> None:
    plain = shared.plain
    shared.on_tick(lambda: gr.Dropdown(choices=actions.subjects()), [], [parts["subject"]])
    shared.on_tick(actions.checkpoints, [parts["subject"]], [parts["checkpoint"]])
    shared.on_tick(
        lambda subject: gr.Radio(choices=labels(actions.formats(subject))), [parts["subject"]], [parts["format"]]
    )
    shared.on_tick(actions.table, [parts["format"], parts["subject"]], [parts["table"]])
    shared.on_tick(actions.earlier, [parts["asks"]], [parts["earlier"]])
    chosen = [shared.subject.change, shared.ready.change]
    gr.on(chosen, plain(actions.follow), [shared.subject, parts["subject"]], parts["subject"], **QUIET)
    parts["subject"].input(lambda value: value or gr.skip(), parts["subject"], shared.subject, **QUIET)
    parts["subject"].change(lambda: CURRENT, None, parts["checkpoint"], **QUIET)
    fields = [parts["strength"], parts["rank"], parts["table"]]
    parts["format"].change(plain(actions.formatted), [parts["format"], parts["subject"]], fields, **QUIET)
    shown = [parts["state"], parts["result"], parts["stop"]]
    form = [parts[name] for name in FORM]
    shared.then_tick(parts["export"].click(plain(actions.export), form, shown, **DRAW))
    parts["stop"].click(plain(actions.stop), None, None, **PROMPT)
    told = [parts["asks"], parts["state"], parts["result"]]
    pressed = parts["earlier"].click(plain(actions.press), None, told, **PROMPT)
    shared.then_tick(pressed)


class ExportActions(OwnOrders):
    """The handlers of Export over one studio."""

    doing = "exporting"

    def subjects(self) -> Choices:
        """What can be exported."""
        return self._entries.trained()

    def first(self) -> str | None:
        """The subject that is chosen as a page opens."""
        subjects = self.subjects()
        return subjects[0][1] if subjects else None

    def formats(self, subject_id: str | None) -> "list[FormatNote]":
        """The formats, with the readers that suit the subject's base, where that is known."""
        try:
            return self._studio.exports.formats(subject_id or None)
        except StudioError:
            return self._studio.exports.formats()

    def table(self, name: str, subject_id: str | None) -> str:
        """HTML of what the formats are for, the chosen one marked."""
        return formats_html(self.formats(subject_id), name)

    def follow(self, subject_id: str, current: str | None) -> Any:
        """The subject that was chosen on another tab, where it can be exported; see ``followed``."""
        return followed([value for _, value in self.subjects()], subject_id, current) or gr.skip()

    def checkpoints(self, subject_id: str | None) -> gr.Dropdown:
        """The checkpoints of the chosen subject."""
        found = [("The one in use", CURRENT)]
        try:
            steps = checkpoints(self._studio, subject_id) if subject_id else []
        except StudioError:
            steps = []
        found.extend((f"{job.id}, step {step}", f"{job.id}@{step}") for job, step in steps)
        return gr.Dropdown(choices=found)

    def formatted(self, name: str, subject_id: str | None = None) -> tuple[Any, ...]:
        """The settings that a format takes, and the table with it marked."""
        formats = self.formats(subject_id)
        note = next((note for note in formats if note.name == name), formats[0])
        return (
            gr.Slider(visible=note.takes_strength),
            gr.Number(visible=note.takes_rank),
            formats_html(formats, note.name),
        )

    def export(
        self,
        subject_id: str | None,
        checkpoint: str | None,
        format_name: str,
        precision: str,
        strength: float,
        rank: float | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Export, prove, and show what each reader makes of the file.

        Yields: the line on how far it is, the result as HTML, the stop button.

        Raises:
            StudioError: it was refused; the reason is shown, and no file is left.
        """
        settings: dict[str, Any] = {"precision": precision, **self._taken(format_name, strength, rank)}
        try:
            check_writable(self._studio)
            subject, job_id, step = self._chosen(subject_id, checkpoint)
            yield state_line(NAME, "waiting", "Starting"), "", gr.Button(interactive=True)
            settings |= {"job_id": job_id, "step": step}
            yield from self._followed(subject, format_name, settings, str(request.session_hash))
        except StoppedError:
            yield state_line(NAME, "stopped", "Stopped; no file is left"), "", gr.Button(interactive=False)
        except Exception as error:
            words = f"Refused: {error}" if isinstance(error, DoraError) else "Not exported"
            yield state_line(NAME, "failed", words), "", gr.Button(interactive=False)
            raise

    def _followed(
        self, subject: str, format_name: str, settings: dict[str, Any], page: str
    ) -> Iterator[tuple[Any, ...]]:
        def work(ticket: Ticket, tell: Callable[[Any], None]) -> None:
            tell(self._studio.exports.export(subject, format_name, on_note=tell, stop=ticket.stop, **settings))

        last: Any = None
        for event in served(self._line, page, work):
            if isinstance(event, Waiting):
                yield state_line(NAME, "waiting", behind(event.ahead)), gr.skip(), gr.skip()
            elif isinstance(event, Stopping):
                yield state_line(NAME, "working", "Stopping", doing="Stopping"), gr.skip(), gr.skip()
            elif isinstance(event, str):
                yield state_line(NAME, "working", event, doing=DOING), gr.skip(), gr.skip()
            else:
                last = event
        if last is None:
            yield state_line(NAME, "stopped", "Stopped; no file is left"), "", gr.Button(interactive=False)
            return
        proved = is_proved(last)
        words = f"{last.path.name} is {proof_words(last)[0]}"
        result = result_html(last, self._names().get(subject, subject))
        yield state_line(NAME, "done" if proved else "failed", words), result, gr.Button(interactive=False)

    def _taken(self, format_name: str, strength: float, rank: float | None) -> dict[str, Any]:
        """The settings that the format takes: a field that is hidden says nothing."""
        note = next((note for note in self._studio.exports.formats() if note.name == format_name), None)
        taken: dict[str, Any] = {}
        if note is not None and note.takes_strength:
            taken["strength"] = strength
        if note is not None and note.takes_rank:
            taken["rank"] = int(rank) if rank else None
        return taken

    def _chosen(self, subject_id: str | None, checkpoint: str | None) -> tuple[str, str | None, int | None]:
        if not subject_id:
            raise StudioError("Choose a subject first. Only what was taught can be exported.")
        subject = self._studio.subjects.get(subject_id)
        if not checkpoint:
            return subject.id, None, None
        known = {f"{job.id}@{step}": (job.id, step) for job, step in checkpoints(self._studio, subject.id)}
        if checkpoint not in known:
            raise StudioError(f"{subject.name} has no such checkpoint any more. Choose another one.")
        return (subject.id, *known[checkpoint])

    def earlier(self, asks: str) -> str:
        """HTML of the exports made so far."""
        return earlier_html(self._studio.exports.list(), self._names(), asks)

    def press(self, event: gr.EventData) -> tuple[Any, Any, Any]:
        """Show or delete an earlier export.

        Returns: the export whose deletion is to be confirmed, the line above the result, the result as HTML.

        Raises:
            StudioError: it is gone.
        """
        wanted = asked(event)
        do, export_id = wanted.get("do"), wanted.get("id", "")
        if do == "show":
            found = self._studio.exports.get(export_id)
            return "", EARLIER, result_html(found, self._names().get(found.subject_id, found.subject_id))
        if do == "delete":
            return self._studio.exports.get(export_id).id, gr.skip(), gr.skip()
        if do == "delete-yes":
            self._studio.exports.delete(export_id)
            return "", IDLE, ""
        return "", gr.skip(), gr.skip()

    def _names(self) -> dict[str, str]:
        return {subject.id: subject.name for subject in self._studio.subjects.list()}


EXPORT = ExportTab()
