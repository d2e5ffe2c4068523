"""What Compare's buttons do: values in, values out; everything else is done by ``studio``."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.errors import DoraError, StudioError
from dora_diffusion.studio.comparisons import MODES, Grid, numbers
from dora_diffusion.studio.orders import Order, checked
from dora_diffusion.studio.ui.choices import Choices, Target, checkpoints, subject_of, target
from dora_diffusion.studio.ui.compare_grid import grid_html
from dora_diffusion.studio.ui.drawing import STARTING, Step, behind, check_writable, state_line
from dora_diffusion.studio.ui.line import Stopping, Ticket, Waiting, served
from dora_diffusion.studio.ui.own_orders import OwnOrders

if TYPE_CHECKING:
    from dora_diffusion.studio.comparisons import Cell

NAME = "compare-state"
IDLE = state_line(
    NAME, "idle", "Choose what to compare. The same prompt is drawn in each cell, with one thing changed."
)
# What the field of values means in each mode, and what stands in it first.
VALUES: dict[str, tuple[str, str, str]] = {
    "base": ("", "", ""),
    "strengths": ("Strengths", "0, 0.4, 0.7, 1, 1.2", "0 to 1.5, with commas between; 0 is the base itself."),
    "seeds": ("Seeds", "1, 2, 3, 4", "Whole numbers with commas between."),
    "checkpoints": ("Steps of the checkpoints", "", "Steps with commas between; only those that were kept."),
}


class CompareActions(OwnOrders):
    """The handlers of Compare over one studio."""

    def subjects(self) -> Choices:
        """What can be compared: everything that can be drawn, and subjects that have checkpoints alone."""
        found = self._entries.drawable()
        known = {value.split("@")[0] for _, value in found}
        return [*found, *((label, subject) for label, subject in self._entries.trained() if subject not in known)]

    def jobs(self, value: str | None) -> Choices:
        """(label, id) of the subject's trainings that have checkpoints, the newest first.

        Raises:
            StudioError: the subject is gone.
        """
        chosen = target(self._studio, value)
        if chosen.subject is None:
            return []
        steps: dict[str, list[int]] = {}
        for job, step in checkpoints(self._studio, chosen.subject.id):
            steps.setdefault(job.id, []).insert(0, step)
        return [(f"{job}: steps {', '.join(map(str, found))}", job) for job, found in steps.items()]

    def mode(self, mode: str, value: str | None) -> tuple[Any, Any]:
        """The fields of a mode: values with their usual ones, and the training whose checkpoints are meant."""
        label, usual, info = VALUES.get(mode, VALUES["base"])
        jobs = self._jobs_or_none(value) if mode == "checkpoints" else []
        job = jobs[0][1] if jobs else None
        if mode == "checkpoints" and job is not None:
            usual = self.steps(job)
        return (
            gr.Textbox(label=label or "Values", value=usual, info=info, visible=bool(label)),
            gr.Dropdown(choices=jobs, value=job, visible=mode == "checkpoints"),
        )

    def meant(self, mode: str, value: str | None, rows: str | None) -> tuple[Any, Any, Any]:
        """The rows, the seed and the strength, of which those are hidden or closed that change nothing now."""
        return (
            gr.Textbox(visible=mode != "seeds"),
            gr.Number(visible=mode != "seeds", interactive=not (rows or "").strip()),
            gr.Slider(visible=mode != "strengths" and bool(subject_of(value))),
        )

    def steps(self, job_id: str | None) -> str:
        """The steps of a training's checkpoints, as the field of values has them."""
        return ", ".join(map(str, self._studio.jobs.checkpoints(job_id))) if job_id else ""

    def plan(self, mode: str, value: str | None, job_id: str | None, values: str, rows: str, *form: Any) -> Grid:
        """What will be drawn.

        Raises:
            StudioError: a value is none, there are too many, or something cannot be drawn.
        """
        if mode not in MODES:
            raise StudioError(f"Compare one of: {', '.join(MODES.values())}.")
        chosen = target(self._studio, value)
        order = self._order(chosen, job_id if mode == "checkpoints" else None, *form)
        if chosen.subject is None and mode != "seeds":
            raise StudioError("A base alone can be compared by its seeds only. Choose a subject.")
        given = numbers(values or "") if mode != "base" else []
        if mode != "base" and not given:
            raise StudioError(f"{VALUES[mode][0]}: write at least one, for example: {VALUES[mode][1] or '60, 120'}.")
        seeds = [int(seed) for seed in numbers(rows or "")] if mode != "seeds" else []
        return self._studio.comparisons.plan(mode, order, given, seeds)

    def _order(
        self, chosen: Target, job_id: str | None, prompt: str, strength: float, seed: int | None, steps: int
    ) -> Order:
        return checked(
            Order(
                subject_id=chosen.subject.id if chosen.subject else None,
                base=chosen.base,
                job_id=job_id or chosen.job_id,
                step=None if job_id else chosen.step,
                prompt=prompt or "",
                strength=strength,
                seed=seed if seed is not None else 0,
                num_inference_steps=steps,
            )
        )

    def cost(self, *form: Any) -> str:
        """What the form would draw, told before; or what is wrong with it, where it is wrong."""
        try:
            words = self.plan(*form).cost
        except DoraError as error:
            return f'<p id="compare-cost" class="cost" data-ok="no" role="status">✗ {escape(str(error))}</p>'
        return f'<p id="compare-cost" class="cost" data-ok="yes" role="status">{escape(words)}</p>'

    def draw(self, request: gr.Request, *form: Any) -> Iterator[tuple[Any, ...]]:
        """Draw the grid, and show each cell as soon as it is there.

        Yields: the grid as HTML, the two pictures of a grid of two, the line on how far it is, the stop button, the
            save button.

        Raises:
            StudioError: it cannot be drawn.
        """
        slider = gr.ImageSlider(visible=False)
        try:
            check_writable(self._studio)
            grid = self.plan(*form)
            line = state_line(NAME, "waiting", f"{STARTING}: {grid.cost}")
            yield grid_html(grid, {}), slider, line, gr.Button(interactive=True), gr.DownloadButton(interactive=False)
            yield from self._followed(grid, str(request.session_hash))
        except Exception as error:
            words = str(error) if isinstance(error, DoraError) else "Not drawn"
            line = state_line(NAME, "failed", words)
            yield gr.skip(), gr.skip(), line, gr.Button(interactive=False), gr.skip()
            raise

    def _followed(self, grid: Grid, page: str) -> Iterator[tuple[Any, ...]]:
        drawn: dict[tuple[int, int], Cell] = {}
        count = len(grid.cells)
        same = gr.skip()

        def work(ticket: Ticket, tell: Callable[[Any], None]) -> None:
            for cell in self._studio.comparisons.draw(grid, None, ticket.stop):
                tell(cell)

        for event in served(self._line, page, work):
            if isinstance(event, Waiting):
                yield same, same, state_line(NAME, "waiting", behind(event.ahead)), same, same
            elif isinstance(event, Stopping):
                yield same, same, state_line(NAME, "working", "Stopping after this step"), same, same
            else:
                drawn[event.row, event.column] = event
                line = state_line(NAME, "working", f"{len(drawn)} of {count} pictures", Step(len(drawn), count))
                yield grid_html(grid, drawn), same, line, same, same
        is_whole = len(drawn) == count
        words = f"{count} pictures" if is_whole else f"Stopped after {len(drawn)} of {count} pictures"
        line = state_line(NAME, "done" if is_whole else "stopped", words)
        yield same, _slider(drawn), line, gr.Button(interactive=False), self._saved(grid, drawn)

    def _saved(self, grid: Grid, drawn: "dict[tuple[int, int], Cell]") -> gr.DownloadButton:
        """The button that takes what was drawn away, as one PNG."""
        if not drawn:
            return gr.DownloadButton(interactive=False)
        cells = tuple(drawn.get((cell.row, cell.column), cell) for cell in grid.cells)
        return gr.DownloadButton(value=str(self._studio.comparisons.save(replace(grid, cells=cells))), interactive=True)

    def _jobs_or_none(self, value: str | None) -> Choices:
        try:
            return self.jobs(value)
        except StudioError:
            return []


def _slider(drawn: "dict[tuple[int, int], Cell]") -> gr.ImageSlider:
    """Two pictures, one over the other, where there are just two."""
    paths = [str(cell.path) for _, cell in sorted(drawn.items(), key=lambda found: found[0])]
    return gr.ImageSlider(value=(paths[0], paths[1]) if len(paths) == 2 else None, visible=len(paths) == 2)
