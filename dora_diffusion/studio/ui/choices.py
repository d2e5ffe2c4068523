"""What can be drawn: bases alone, trained subjects, checkpoints; as the entries of a list, and back from an entry.

An entry's value is text that the browser sends back, so it is read with suspicion:
``base:<name>``, ``<subject>``, ``<subject>@<job>@<step>`` or ``<subject>@<job>@newest``.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dora_diffusion.errors import StudioError

if TYPE_CHECKING:
    from dora_diffusion.studio.jobs import Job
    from dora_diffusion.studio.orders import Order
    from dora_diffusion.studio.studio import Studio
    from dora_diffusion.studio.subjects import Subject

BASE = "base:"
NEWEST = "newest"
Choices = list[tuple[str, str]]


@dataclass(frozen=True)
class Target:
    """What an entry stands for: a subject (None: the base alone), maybe at one of its checkpoints."""

    base: str
    subject: "Subject | None" = None
    job_id: str | None = None
    step: int | None = None


class Entries:
    """The lists of what can be chosen, made once for all pages until something changes: many pages look each second."""

    def __init__(self, studio: "Studio"):
        self._studio = studio
        self._guard = threading.Lock()
        self._made: dict[str, tuple[int, Choices]] = {}

    def drawable(self) -> Choices:
        """As ``drawable``."""
        return self._once("drawable", drawable)

    def trained(self) -> Choices:
        """As ``trained``."""
        return self._once("trained", trained)

    def _once(self, name: str, make: Callable[["Studio"], Choices]) -> Choices:
        with self._guard:
            revision = self._studio.jobs.revision()
            if name not in self._made or self._made[name][0] != revision:
                self._made[name] = revision, make(self._studio)
            return list(self._made[name][1])


def drawable(studio: "Studio") -> Choices:
    """(label, value) of all that can be drawn now: subjects, the last worked on first, then the bases alone."""
    found: Choices = []
    running = {job.subject_id: job for job in studio.jobs.current() if job.is_active}
    for subject in studio.subjects.list():
        if studio.subjects.adapter(subject.id) is not None:
            found.append((called(subject), subject.id))
        job = running.get(subject.id)
        steps = studio.jobs.checkpoints(job.id) if job else []
        if job and steps:
            label = f"{called(subject)}, in training: newest checkpoint, step {steps[-1]} of {job.total}"
            found.append((label, f"{subject.id}@{job.id}@{NEWEST}"))
    found.extend((f"{base.label} alone", f"{BASE}{base.name}") for base in studio.bases.list() if not base.is_missing)
    return found


def trained(studio: "Studio") -> Choices:
    """(label, id) of the subjects that have an adapter or a checkpoint, the last worked on first."""
    return [(called(subject), subject.id) for subject in with_something(studio)]


def with_something(studio: "Studio") -> list["Subject"]:
    """The subjects of which there is anything to draw or export; only those that have begun are looked at."""
    begun = studio.jobs.begun()
    return [subject for subject in studio.subjects.list() if subject.id in begun and _has_something(studio, subject)]


def _has_something(studio: "Studio", subject: "Subject") -> bool:
    if studio.subjects.adapter(subject.id) is not None:
        return True
    return any(studio.jobs.checkpoints(job.id) for job in studio.jobs.of_subject(subject.id))


def checkpoints(studio: "Studio", subject_id: str) -> list[tuple["Job", int]]:
    """Every checkpoint of a subject's trainings, the newest training first, its last step first."""
    jobs = sorted(studio.jobs.of_subject(subject_id), key=lambda job: job.created, reverse=True)
    return [(job, step) for job in jobs for step in sorted(studio.jobs.checkpoints(job.id), reverse=True)]


def called(subject: "Subject") -> str:
    """ "Rex (sks dog)"."""
    return f"{subject.name} ({subject.words})"


def value_of(order: "Order") -> str:
    """The entry that draws what an order draws."""
    if order.subject_id is None:
        return f"{BASE}{order.base}"
    return order.subject_id if order.job_id is None else f"{order.subject_id}@{order.job_id}@{order.step}"


def same_subject(current: str | None, subject_id: str) -> bool:
    """Whether an entry draws this subject, whole or at one of its checkpoints."""
    return bool(current) and str(current).split("@")[0] == subject_id


def followed(values: list[str], subject_id: str, current: str | None) -> str | None:
    """The entry to show when the page turns to a subject; None: what is shown stays.

    A subject of which there is nothing yet leaves what somebody chose; a page that is fresh shows the newest of
    the others.
    """
    if not subject_id or (same_subject(current, subject_id) and current in values):
        return None
    of_subject = [value for value in values if same_subject(value, subject_id)]
    is_chosen = current in values and bool(subject_of(current))
    newest = [value for value in values if subject_of(value)]
    return next(iter(of_subject or ([] if is_chosen else newest)), None)


def subject_of(value: object) -> str:
    """The subject's id in an entry; "" for a base alone."""
    return "" if not isinstance(value, str) or value.startswith(BASE) else value.split("@")[0]


def label_of(studio: "Studio", value: str) -> str:
    """What a value says to a person.

    Raises:
        StudioError: as ``target``.
    """
    found = target(studio, value)
    if found.subject is None:
        return f"{found.base} alone"
    return called(found.subject) if found.step is None else f"{called(found.subject)}, step {found.step}"


def target(studio: "Studio", value: object) -> Target:
    """What the chosen entry stands for, now.

    Raises:
        StudioError: nothing is chosen, or what was chosen is gone.
    """
    if not isinstance(value, str) or not value:
        raise StudioError("Choose first what to draw: a subject, or a base model alone.")
    if value.startswith(BASE):
        return Target(studio.bases.get(value.removeprefix(BASE)).name)
    subject_id, *checkpoint = _meant(studio, value).split("@")
    subject = studio.subjects.get(subject_id)
    if not checkpoint:
        return Target(subject.base, subject)
    job_id, step = _checkpoint(studio, subject, checkpoint)
    return Target(subject.base, subject, job_id, step)


def _meant(studio: "Studio", value: str) -> str:
    """The entry that begins as was typed, where it is one only: typing is as good as choosing."""
    found = [entry for label, entry in drawable(studio) if label.lower().startswith(value.strip().lower())]
    return found[0] if len(found) == 1 and found[0] != value and not found[0].startswith(BASE) else value


def _checkpoint(studio: "Studio", subject: "Subject", asked: list[str]) -> tuple[str, int]:
    known = {job.id for job in studio.jobs.of_subject(subject.id)}
    if len(asked) != 2 or asked[0] not in known:
        raise StudioError(f"{subject.name} has no such checkpoint. Choose another one.")
    job_id, wanted = asked
    steps = studio.jobs.checkpoints(job_id)
    step = (
        (steps[-1] if steps else None)
        if wanted == NEWEST
        else int(wanted)
        if wanted.isascii() and wanted.isdigit()
        else None
    )
    if step is None or step not in steps:
        raise StudioError(f"{subject.name} has no checkpoint of step {wanted[:20]} any more. Choose another one.")
    return job_id, step
