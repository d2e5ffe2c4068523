"""What an order means here and now: which subject, which adapter file, which base."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dora_diffusion import __version__
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.bases import Bases, shown_name
from dora_diffusion.studio.database import Database
from dora_diffusion.studio.home import Home
from dora_diffusion.studio.intake import slug
from dora_diffusion.studio.jobs import Jobs
from dora_diffusion.studio.orders import Order, checked, decided
from dora_diffusion.studio.prompts import written_out
from dora_diffusion.studio.subjects import Subject, Subjects


@dataclass(frozen=True)
class Request:
    """An order with everything looked up that it names.

    Args:
        adapter: None draws the base alone.
        sent: the prompt as the model gets it.
        folder: name of the folder in ``media/pictures`` that such pictures belong to.
    """

    order: Order
    subject: Subject | None
    adapter: Path | None
    sent: str
    folder: str

    def arguments(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        """What the workshop's task "draw" takes, to draw into ``files``."""
        order, subject, base = self.order, self.subject, shown_name(self.order.base)
        return {
            "base": order.base,
            "adapter": str(self.adapter) if self.adapter else None,
            "strength": order.strength,
            "prompt": self.sent,
            "negative_prompt": order.negative_prompt,
            "num_inference_steps": order.num_inference_steps,
            "guidance_scale": order.guidance_scale,
            "sampler": order.sampler,
            "width": order.width,
            "height": order.height,
            "files": files,
            "remember": {
                "model": base,
                "adapter": subject.id if subject else None,
                "subject_id": subject.id if subject else None,
                "subject": subject.name if subject else None,
                "version": __version__,
                # No path of this machine in a picture that people share.
                "order": {**asdict(order), "base": base, "num_images": 1},
            },
        }


class Lookup:
    """Finds what orders and exports name."""

    def __init__(self, home: Home, database: Database, subjects: Subjects, jobs: Jobs, bases: Bases):
        self._home, self._database = home, database
        self._subjects, self._jobs, self._bases = subjects, jobs, bases

    def request(self, order: Order) -> Request:
        """The order, checked, with a seed, and with everything looked up that it names.

        Raises:
            StudioError: it cannot be drawn.
        """
        order = decided(checked(order))
        if order.subject_id is None:
            self._check_base(order.base)
            folder = f"base-{slug(shown_name(order.base))}"
            return Request(replace(order, job_id=None, step=None), None, None, order.prompt, folder)
        subject = self.subject(order.subject_id)
        order = replace(order, base=self.base_of(subject, order.job_id))
        adapter = self.adapter(subject, order.job_id, order.step)
        return Request(order, subject, adapter, written_out(order.prompt, subject), subject.id)

    def subject(self, subject_id: str) -> Subject:
        """Raises: StudioError: there is none, or it is in the trash."""
        subject = self._subjects.get(self._home.check_id("subject", subject_id))
        if subject.deleted is not None:
            raise StudioError(f"{subject.name} is in the trash. Restore it first.")
        return subject

    def base_of(self, subject: Subject, job_id: str | None) -> str:
        """The base of the training whose adapter is meant: the subject may be given another for its next.

        Raises:
            StudioError: it is not here any more.
        """
        wanted = job_id or subject.chosen_job
        rows = self._database.rows(
            "select 'job-' || number as id, base, state from jobs where subject_id = ? order by number desc",
            [subject.id],
        )
        meant = [row for row in rows if (row["id"] == wanted if wanted else row["state"] == "done")]
        name = str(meant[0]["base"]) if meant else subject.base
        self._check_base(name)
        return name

    def adapter(self, subject: Subject, job_id: str | None, step: int | None) -> Path:
        """The file of a checkpoint, or that stands for the subject.

        Raises:
            StudioError: there is none.
        """
        if job_id is not None:
            job = self._jobs.get(self._home.check_id("job", job_id))
            if job.subject_id != subject.id:
                raise StudioError(f"The training {job.id} is not one of {subject.name}.")
            return self._jobs.adapter(job.id, step)
        adapter = self._subjects.adapter(subject.id)
        if adapter is None:
            raise StudioError(f"{subject.name} is not trained yet. Press Train first; pictures come after it.")
        return adapter

    def found_again(self, order: Order, facts: dict[str, str]) -> tuple[Order, list[str]]:
        """The order of a picture from anywhere with what it names here, and notes on what is not.

        Args:
            facts: what the picture says besides: "subject", "adapter_sha256".
        """
        notes = []
        base = self._bases.called(order.base)
        if base is None or base.is_missing:
            lack = "is not here any more" if base else "is not here"
            notes.append(f"The base {shown_name(order.base)[:60]} {lack}: add it under Teach, or choose another.")
        order = replace(order, base=base.name if base and not base.is_missing else "toybox")
        if order.subject_id is None:
            return order, notes
        try:
            subject = self.subject(order.subject_id)
        except StudioError:
            name = facts.get("subject", "") or order.subject_id
            notes.append(f"The subject {name[:60]!r} is not here; the base alone will draw it.")
            return replace(order, subject_id=None, job_id=None, step=None), notes
        return self._with_adapter(order, subject, facts.get("adapter_sha256", ""), notes), notes

    def _with_adapter(self, order: Order, subject: Subject, digest: str, notes: list[str]) -> Order:
        """The order with the checkpoint it names if that is here, and a note where the adapter is another one."""
        try:
            adapter = self.adapter(subject, order.job_id, order.step)
        except StudioError:
            if order.job_id is None:
                notes.append(f"{subject.name} is not trained here yet.")
                return order
            what = order.job_id if order.step is None else f"Step {order.step} of {order.job_id}"
            notes.append(f"{what} is not here; {subject.name} as it is now is taken.")
            return self._with_adapter(replace(order, job_id=None, step=None), subject, digest, notes)
        if digest and adapter.is_file() and sha256(adapter) != digest:
            notes.append(f"{subject.name} was trained again since: the picture will differ.")
        return order

    def _check_base(self, name: str) -> None:
        base = self._bases.get(name)
        if base.is_missing:
            raise StudioError(f"{base.label} is not where it was. {base.note}".rstrip())


def sha256(file: Path) -> str:
    """Of a file, as hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
