"""Teach: photos, what it is, how well; then Train, and what comes of it."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.errors import DoraError, StudioError
from dora_diffusion.studio.intake import check_noun
from dora_diffusion.studio.ui.advanced import build_advanced, read
from dora_diffusion.studio.ui.models import build_models, choices
from dora_diffusion.studio.ui.photos import build_photos
from dora_diffusion.studio.ui.progress import build_progress
from dora_diffusion.studio.ui.shared import PROMPT, QUIET, Shared, find

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import Subject

NO_PHOTOS = (
    "Add photos of your subject first: three to twenty, from different sides and in different places. Those that are "
    "being read count as soon as they are shown."
)
WHAT = "What is it? Write one or two words, for example: teapot, dog, backpack."


class Teach:
    """The first tab: three decisions on the left, what comes of them on the right."""

    label = "Teach"

    def build(self, studio: "Studio", shared: Shared) -> None:
        with gr.Row(equal_height=False, elem_classes="sides"):
            with gr.Column(scale=5, min_width=300, elem_id="teach-form", elem_classes="card"):
                words = _words(studio)
                owner = gr.Textbox(visible="hidden", elem_id="teach-owner", label="Whose words these are")
                gr.HTML("<h2><span>1</span> Your photos</h2>", elem_id="teach-step-1")
                uploaded, refused = build_photos(studio, shared, owner, words)
                gr.HTML("<h2><span>2</span> What is it?</h2>", elem_id="teach-step-2")
                noun, name, trigger, base = words
                with gr.Row():
                    noun.render()
                    name.render()
                gr.HTML("<h2><span>3</span> How well?</h2>", elem_id="teach-step-3")
                quality = _quality(studio)
                cost = gr.HTML(elem_id="teach-cost")
                base.render()
                build_models(studio, shared, base)
                overrides = build_advanced(studio, shared, trigger, quality)
                fault = gr.HTML(elem_id="teach-fault")
                with gr.Row():
                    train = gr.Button(
                        "Train", elem_id="teach-train", variant="primary", size="lg", scale=2, min_width=160
                    )
                    new = gr.Button("New subject", elem_id="teach-new", size="lg", scale=1, min_width=120)
            with gr.Column(scale=6, min_width=300, elem_id="teach-progress", elem_classes="card"):
                build_progress(studio, shared)
        _bind_words(studio, shared, owner, words, quality, uploaded)
        _bind_cost(studio, shared, base, quality, overrides, cost)
        _bind_train(studio, shared, [owner, *words, quality, overrides], train, fault)
        train.click(lambda: "", None, refused, **QUIET)  # what was left out is seen; what comes now is another thing
        _bind_new(studio, shared, new)


TEACH = Teach()


def _words(studio: "Studio") -> tuple[gr.Textbox, gr.Textbox, gr.Textbox, gr.Dropdown]:
    """Class noun, name, trigger and base, made but not placed yet."""
    return (
        gr.Textbox(
            elem_id="teach-noun",
            label="In one or two words",
            info="What a stranger would call it.",
            placeholder="teapot, dog, backpack",
            max_lines=1,
            max_length=60,
            min_width=190,
            render=False,
        ),
        gr.Textbox(
            elem_id="teach-name",
            label="Name (optional)",
            info="What you call it here.",
            placeholder="My teapot",
            max_lines=1,
            max_length=80,
            min_width=190,
            render=False,
        ),
        gr.Textbox(
            elem_id="teach-trigger",
            label="Trigger word",
            info="The rare word that will stand for the subject in prompts; left empty, sks.",
            placeholder="sks",
            max_lines=1,
            max_length=32,
            render=False,
        ),
        gr.Dropdown(
            choices(studio.bases.list()),
            value="toybox",
            elem_id="teach-base",
            label="Base model",
            info="The model that learns it.",
            filterable=False,
            render=False,
        ),
    )


def _quality(studio: "Studio") -> gr.Radio:
    known = studio.jobs.qualities("toybox")
    return gr.Radio(
        _labels(known, {}),
        value=_usual(known),
        elem_id="teach-quality",
        label="Quality",
        show_label=False,
    )


def _labels(qualities: dict[str, str], costs: dict[str, str]) -> list[tuple[str, str]]:
    """ "Balanced, 300 steps: a good likeness (about 2 min, 1.4 GiB of 24 GiB)"."""
    return [
        (f"{name.capitalize()}, {line}" + (f" ({costs[name]})" if costs.get(name) else ""), name)
        for name, line in qualities.items()
    ]


def _usual(qualities: dict[str, str]) -> str:
    return list(qualities)[len(qualities) // 2]


def _bind_words(
    studio: "Studio",
    shared: Shared,
    owner: gr.Textbox,
    words: tuple[Any, ...],
    quality: gr.Radio,
    uploaded: gr.events.Dependency,
) -> None:
    """What is written is kept; what another subject says is shown.

    Between the choice of another subject and its words there is a moment in which the page shows those of the one
    before: ``owner`` says whose they are, so that nobody gets the words of another, and nobody's writing is taken away
    by a subject that his own photos have just made.
    """

    def keep(subject_id: str, whose: str, noun: str, name: str, trigger: str, base: str) -> str:
        if find(studio, subject_id) is None or whose != subject_id:
            return ""
        return keep_words(studio, subject_id, noun, name, trigger, base).name

    def load(subject_id: str, whose: str) -> tuple[Any, ...]:
        subject = find(studio, subject_id)
        if subject is not None and whose == subject_id:
            return (gr.skip(),) * 6
        if subject is None:
            return "", "", "", "", "toybox", gr.skip()
        known = studio.jobs.qualities(subject.base)
        last = next(iter(studio.jobs.of_subject(subject_id)), None)
        how = last.quality if last is not None and last.quality in known else _usual(known)
        shown = gr.Radio(choices=qualities_of(studio, subject_id, subject.base), value=how)
        return subject_id, subject.class_noun, subject.name, subject.trigger, subject.base, shown

    def other_base(subject_id: str, base: str, how: str) -> Any:
        known = studio.jobs.qualities(base)
        offered = qualities_of(studio, subject_id, base)
        return gr.Radio(choices=offered, value=how if how in known else _usual(known))

    noun, name, trigger, base = words
    shared.then_tick(
        shared.subject.change(shared.plain(load), [shared.subject, owner], [owner, *words, quality], **QUIET)
    )
    called = gr.Textbox(visible="hidden", elem_id="teach-called", label="What the subject is called")
    whole = [shared.subject, owner, *words]
    uploads = uploaded.then(shared.plain(keep), whole, called, **QUIET)
    # Words are kept when their field is left, not letter by letter: the first one names the subject.
    left = gr.on(
        [noun.blur, noun.submit, name.blur, name.submit, trigger.blur, trigger.submit, base.input],
        shared.plain(keep),
        whole,
        called,
        trigger_mode="always_last",
        **QUIET,
    )
    for kept in (uploads, left):  # in the browser: while the answer was on its way, a name may have been begun
        kept.then(None, [called, name], name, js="(called, name) => name || called", api_visibility="private")
    base.input(shared.plain(other_base), [shared.subject, base, quality], quality, **QUIET)


def keep_words(studio: "Studio", subject_id: str, noun: str, name: str, trigger: str, base: str) -> "Subject":
    """Note what is known so far; what cannot be used yet is not refused here, Train does that."""
    try:
        return studio.subjects.update(
            subject_id, name=name or None, class_noun=noun or None, trigger=trigger or None, base=base or None
        )
    except DoraError:
        return studio.subjects.get(subject_id)


def _bind_new(studio: "Studio", shared: Shared, new: gr.Button) -> None:
    """An empty form; or what was begun on this page before another subject was looked at."""
    begun = gr.Textbox(visible="hidden", elem_id="teach-begun", label="What was begun here")

    def is_begun(subject_id: str) -> bool:
        subject = find(studio, subject_id)
        # With words it has a card on Subjects; photos alone would be seen nowhere.
        return subject is not None and not subject.class_noun and bool(studio.subjects.photos(subject.id))

    def note(subject_id: str) -> Any:
        return subject_id if subject_id and is_begun(subject_id) else gr.skip()

    def another(subject_id: str, begun_id: str) -> str:
        return begun_id if begun_id != subject_id and is_begun(begun_id) else ""

    shared.subject.change(shared.plain(note), shared.subject, begun, **QUIET)
    new.click(shared.plain(another), [shared.subject, begun], shared.subject, **QUIET)


def _bind_cost(
    studio: "Studio", shared: Shared, base: gr.Dropdown, quality: gr.Radio, overrides: gr.Textbox, cost: gr.HTML
) -> None:
    """What each quality costs, at its name; and what the changed settings make of it."""

    def look(subject_id: str, base_name: str, how: str, text: str) -> tuple[Any, str]:
        offered = gr.Radio(choices=qualities_of(studio, subject_id, base_name))
        if find(studio, subject_id) is None:
            return offered, ""
        words, fits = cost_of(studio, subject_id, how, read(text))
        return offered, cost_html(words if read(text) else "", fits)

    # Measured in the background, which no revision counts.
    shared.on_tick(look, [shared.subject, base, quality, overrides], [quality, cost], always=True)


def qualities_of(studio: "Studio", subject_id: str, base: str) -> list[tuple[str, str]]:
    """What can be chosen, each with what it costs for this subject."""
    known = studio.jobs.qualities(base)
    costs = {}
    if find(studio, subject_id):
        costs = {name: cost_of(studio, subject_id, name, {})[0] for name in known}
    return _labels(known, costs)


def cost_html(words: str, fits: bool) -> str:
    """What the changed settings cost, and a warning where they cannot work."""
    told = f"With your changes: {words}." if words else ""
    warned = "" if fits else "⚠ That is more memory than there is here: take a smaller resolution or batch."
    said = " ".join(filter(None, (escape(told), warned)))
    return f'<p class="quiet" data-fits="{str(fits).lower()}">{said}</p>' if said else ""


def cost_of(studio: "Studio", subject_id: str, quality: str, overrides: dict[str, Any]) -> tuple[str, bool]:
    """In words what a training takes, as far as that is known, and whether its memory suffices."""
    try:
        config = studio.jobs.config(subject_id, quality, overrides)
        estimate = studio.estimates.of(config)
    except DoraError:
        return "", True
    if estimate is None:
        return "being measured" if studio.estimates.is_measuring(config) else "", True
    return estimate.words, estimate.fits


def _bind_train(studio: "Studio", shared: Shared, order: Sequence[Any], train: gr.Button, fault: gr.HTML) -> None:
    def start(
        subject_id: str, whose: str, noun: str, name: str, trigger: str, base: str, quality: str, overrides: str
    ) -> str:
        subject = find(studio, subject_id)
        if subject is not None and whose != subject_id:  # pressed before its words were shown
            noun, name, trigger, base = subject.class_noun, subject.name, subject.trigger, subject.base
        missing = what_is_missing(studio, subject, noun)
        if missing:
            return fault_html(missing)
        if not any(not job.has_ended for job in studio.jobs.of_subject(subject_id)):
            studio.subjects.update(subject_id, name=name or None, class_noun=noun, trigger=trigger or "sks", base=base)
            studio.jobs.enqueue(subject_id, quality, read(overrides))
        return ""  # a double click, or another page: one training

    def look(subject_id: str) -> gr.Button:
        if find(studio, subject_id) is None:
            return gr.Button("Train", interactive=True)
        jobs = studio.jobs.of_subject(subject_id)
        busy = any(not job.has_ended for job in jobs)
        return gr.Button("Train again" if jobs and not busy else "Train", interactive=not busy)

    shared.on_tick(look, [shared.subject], [train])
    shared.then_tick(train.click(shared.plain(start), [shared.subject, *order], fault, **PROMPT))
    gr.on([order[1].input, shared.subject.change], lambda: "", None, fault, **QUIET)


def what_is_missing(studio: "Studio", subject: "Subject | None", noun: str) -> str:
    """What a training cannot begin without, in words; empty when all is there."""
    if subject is None or not studio.subjects.photos(subject.id):
        return NO_PHOTOS
    if not noun or not noun.strip():
        return WHAT
    try:
        check_noun(noun)
    except StudioError as error:
        return str(error)
    return ""


def fault_html(words: str) -> str:
    """What must be done first, beside the button that wants it."""
    return f'<p class="fault" role="alert">✗ {escape(words)}</p>'
