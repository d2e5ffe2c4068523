"""What the shell of the page lends to every tab: the chosen subject, the clock, plain errors, other tabs."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr

from dora_diffusion.errors import DoraError, StudioError
from dora_diffusion.studio.ui.choices import Entries
from dora_diffusion.studio.ui.line import Line
from dora_diffusion.studio.ui.plain import LOG, plainly

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import Subject

# For what runs by itself, or only notes something: at once, without a queue, without a spinner.
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
# For what a user presses and is done in a moment. It goes through the queue: only there an error reaches the page.
PROMPT: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
# For what draws or computes for long: one at a time, in the order asked.
WORK: dict[str, Any] = {"concurrency_id": "gpu", "concurrency_limit": 1, "api_visibility": "private"}

HEARD = "() => { window.studioHeard = Date.now(); }"
FAST_S, SLOW_S = 1.0, 5.0  # between two looks at the studio: while something is active, and otherwise

Handler = Callable[..., Any]


class Tab(Protocol):
    """One tab of the page, registered in ``registry.TABS``.

    Its components have ids that begin with the tab's name in the registry ("create-prompt"): none is given twice.
    """

    label: str

    def build(self, studio: "Studio", shared: "Shared") -> None:
        """Make the components, inside the tab's own ``gr.Tab``, and bind their events."""
        ...


@dataclass(frozen=True)
class Look:
    """One thing a page keeps up to date; see ``Shared.on_tick``."""

    fn: Handler
    inputs: list[Any]
    outputs: list[Any]
    always: bool


@dataclass
class Shared:
    """What every tab gets.

    Attributes:
        studio: the service.
        page: the Blocks.
        tabs: the gr.Tabs, to be an output of what leads to another tab; see ``go``.
        subject: hidden textbox with the id of the chosen subject, or ""; input, output, and ``.change`` to listen to.
            Its value comes from the browser, so it is checked like any other text.
        checkpoint: hidden textbox with the checkpoint that Teach's "Try it now" wants drawn with in Create, written
            "job-3:200", or "" for the subject's own adapter; emptied when another subject is chosen.
        ready: hidden textbox with the id of the chosen subject once there is something of it to use, else "": tabs that
            use subjects listen to its ``.change``, because the subject that is taught was chosen long before.
        line: the orders of all pages that draw or export.
        entries: what can be drawn and exported.
        looks, followed: what ``on_tick`` and ``then_tick`` have noted, bound when all tabs are built.
        faults: what went wrong in looks, and is in the log already.
    """

    studio: "Studio"
    page: gr.Blocks
    tabs: gr.Tabs
    subject: gr.Textbox
    checkpoint: gr.Textbox
    line: Line = field(default_factory=Line)
    looks: list[Look] = field(default_factory=list)
    followed: list[Any] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)
    entries: Entries = field(init=False)
    ready: gr.Textbox = field(init=False)

    def __post_init__(self) -> None:
        self.entries = Entries(self.studio)
        self.ready = gr.Textbox(visible="hidden", elem_id="ready", label="Whether the chosen subject can be used")

    def plain(self, handler: Handler) -> Handler:
        """``handler`` with its errors as toasts in plain words; every handler of a page wears this."""
        return plainly(self.studio.home.log_file)(handler)

    def on_tick(
        self, fn: Handler, inputs: Sequence[Any] = (), outputs: Sequence[Any] = (), always: bool = False
    ) -> None:
        """Keep ``outputs`` up to date: ``fn(*inputs)`` is called when the page opens, and whenever ``jobs.revision()``
        or an input has changed, looked at each second while something is active, every five seconds otherwise.

        ``fn`` returns one value for each output (a bare value for one). What equals the value that this page was sent
        last is not sent again, so ``fn`` need not care; it may return ``gr.skip()`` for an output. Never give it a
        control that the user writes into as an output, unless to change its choices. It must answer within
        milliseconds; what it raises is logged, and its outputs stay as they are.

        ``always``: also when nothing has changed (for what the revision does not count).
        """
        self.looks.append(Look(fn, list(inputs), list(outputs), always))

    def then_tick(self, event: Any) -> Any:
        """After ``event`` (what ``button.click(...)`` returned) show at once what is true; returns it."""
        self.followed.append(event)
        return event

    def go(self, name: str) -> gr.Tabs:
        """The value for the output ``shared.tabs`` that shows the tab called ``name`` in the registry."""
        return gr.Tabs(selected=name)

    def anew(self) -> str:
        """The value for the output ``shared.checkpoint`` with which Create shows the chosen subject itself, though it
        was chosen long before, or one of its checkpoints was tried: never the same twice, so that pages notice.
        """
        return f"end:{time.time_ns()}"

    def bind(self) -> None:
        """Bind the clock; the shell calls this once, after all tabs."""
        # What this page has, kept by the page itself: it comes and goes with what it speaks of. An answer that was
        # lost, or overtaken by another, is made up for with the next look; a record of the server's would not know.
        seen = gr.Textbox(visible="hidden", elem_id="seen", label="What this page shows")
        timer = gr.Timer(FAST_S)
        inputs = [seen, *(component for look in self.looks for component in look.inputs)]
        outputs = [seen, timer, *(component for look in self.looks for component in look.outputs)]
        tick: dict[str, Any] = {"fn": self.plain(self._tick), "inputs": inputs, "outputs": outputs, **QUIET}
        self.page.load(**tick)
        # Only a look that was answered says so: the header tells when none is any more.
        timer.tick(**tick).success(None, js=HEARD, api_visibility="private")
        for event in self.followed:
            event.then(**tick)

    def usable(self, subject_id: str) -> str:
        """What ``ready`` says of the chosen subject; the shell keeps it up to date."""
        subject = find(self.studio, subject_id)
        return subject_id if subject and self.studio.subjects.adapter(subject_id) is not None else ""

    def _tick(self, page: str, *values: Any) -> list[Any]:
        """What is true now, as far as this page does not have it; ``page`` says what it has."""
        seen = _read_seen(page)
        now: dict[str, Any] = {}
        answer: list[Any] = []
        revision, place = self.studio.jobs.revision(), 0
        for number, look in enumerate(self.looks):
            given = list(values[place : place + len(look.inputs)])
            place += len(look.inputs)
            told, at = seen.get(str(number), {"at": None, "sent": {}}), [revision, _digest(given)]
            if told["at"] == at and not look.always:
                now[str(number)] = told
                answer.extend(gr.skip() for _ in look.outputs)
                continue
            shown, sent = _unsent(self._looked(look, given), told["sent"])
            now[str(number)] = {"at": at, "sent": sent}
            answer.extend(shown)
        interval = FAST_S if any(job.is_active for job in self.studio.jobs.current()) else SLOW_S
        now["clock"] = {"at": interval, "sent": {}}
        clock = gr.skip() if seen.get("clock") == now["clock"] else gr.Timer(interval)
        return [json.dumps(now) if now != seen else gr.skip(), clock, *answer]

    def _looked(self, look: Look, given: list[Any]) -> list[Any]:
        """What one look says; one that fails says nothing, and the others go on."""
        try:
            return _listed(look.fn(*given), len(look.outputs))
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            if fault not in self.faults and not isinstance(error, DoraError):
                self.faults.add(fault)  # once: it will come again with each tick
                LOG.exception("a page cannot be kept up to date")
            return [gr.skip()] * len(look.outputs)


def find(studio: "Studio", subject_id: str) -> "Subject | None":
    """The subject, drafts too; None where there is none or it is deleted: what a browser remembers may be gone."""
    try:
        subject = studio.subjects.get(subject_id)
    except StudioError:
        return None
    return subject if subject.deleted is None else None


def called(subject: "Subject | None") -> str:
    """What the page calls a subject; a draft has no name yet."""
    return (subject.name if subject else "") or "your subject"


def _listed(returned: Any, count: int) -> list[Any]:
    if count == 1 and not isinstance(returned, tuple):
        return [returned]
    if returned == gr.skip():
        return [returned] * count
    return list(returned)


def _read_seen(page: Any) -> dict[str, dict[str, Any]]:
    """What a page says that it has. It comes from a browser: one that says nonsense has nothing."""
    try:
        seen = json.loads(page)
    except (TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(seen, dict):
        return {}
    parts = {name: part for name, part in seen.items() if isinstance(part, dict)}
    return {name: part for name, part in parts.items() if "at" in part and isinstance(part.get("sent"), dict)}


def _unsent(values: list[Any], sent: dict[str, str]) -> tuple[list[Any], dict[str, str]]:
    """``values`` with those that were sent already left out, and the digests of what the page has now."""
    shown, digests = [], dict(sent)
    for number, value in enumerate(values):
        digest = _digest(value)
        is_new = value != gr.skip() and sent.get(str(number)) != digest
        if is_new:
            digests[str(number)] = digest
        shown.append(value if is_new else gr.skip())
    return shown, digests


def _digest(value: Any) -> str:
    """A short stand-in for a value that is compared and not kept; a component stands for what it was made with."""
    text = json.dumps(
        value, default=lambda other: getattr(other, "constructor_args", None) or str(other), sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
