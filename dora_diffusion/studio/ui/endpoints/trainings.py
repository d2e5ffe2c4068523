"""Endpoints about trainings: what they would take, start them, look at them, stop them and help them on."""

from typing import TYPE_CHECKING, Any

from dora_diffusion.studio.estimates import Estimate
from dora_diffusion.studio.jobs import Job, State
from dora_diffusion.studio.subjects import Subject
from dora_diffusion.studio.ui.endpoints.boundary import Limit, Offset, Step

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


class TrainingEndpoints:
    """How they are taught."""

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.at_once = (
            self.qualities,
            self.estimate,
            self.train,
            self.jobs,
            self.job,
            self.losses,
            self.checkpoints,
            self.use_checkpoint,
            self.cancel,
            self.resume,
            self.remedy,
            self.remove_job,
        )
        self.in_line = ()

    def qualities(self, base: str = "toybox") -> dict[str, str]:
        """The qualities of a training that can be chosen for a base model.

        Args:
            base: a name that bases lists.

        Returns:
            Name to a line about it.
        """
        return self.studio.jobs.qualities(self.studio.bases.get(base).name)

    def estimate(
        self, subject: str, quality: str = "balanced", overrides: dict[str, Any] | None = None
    ) -> Estimate | None:
        """Time and memory that a training would take on this machine. Answers at once.

        Args:
            subject: its id.
            quality: a name that qualities lists.
            overrides: other settings, as train takes them.

        Returns:
            Seconds and GiB, and where the figures come from; null while they are measured: ask again in a minute.
        """
        return self.studio.estimates.of(self.studio.jobs.config(subject, quality, overrides or {}))

    def train(self, subject: str, quality: str = "balanced", overrides: dict[str, Any] | None = None) -> Job:
        """Put a training of a subject at the end of the queue. It goes on whoever leaves; ask job how it is.

        Args:
            subject: its id.
            quality: a name that qualities lists.
            overrides: settings by their dotted names, for example {"adapter.rank": 8, "max_train_steps": 400}.

        Returns:
            The job; its id is what job, losses, cancel and resume ask for.
        """
        return self.studio.jobs.enqueue(subject, quality, overrides or {})

    def jobs(self, limit: Limit = 50, offset: Offset = 0, state: State | None = None) -> list[Job]:
        """The trainings, the newest first.

        Args:
            limit: how many at most, 1 to 200.
            offset: how many of the newest to leave out.
            state: only those in this state.

        Returns:
            The jobs, as job tells them.
        """
        return self.studio.jobs.list(limit, offset, state)

    def job(self, job: str) -> Job:
        """How a training is now.

        Args:
            job: its id, for example job-1.

        Returns:
            State, step of total, loss, likeness, seconds_left, place in the queue; if it failed, why, and remedies.
        """
        return self.studio.jobs.get(job)

    def losses(self, job: str) -> list[list[float]]:
        """The loss of a training.

        Args:
            job: its id.

        Returns:
            Step and loss, of every step that was logged.
        """
        return [[step, loss] for step, loss in self.studio.jobs.losses(job)]

    def checkpoints(self, job: str) -> list[int]:
        """The steps of a training whose adapter can be drawn with; the training may still run.

        Args:
            job: its id.

        Returns:
            The steps, in order.
        """
        return self.studio.jobs.checkpoints(job)

    def use_checkpoint(self, subject: str, job: str, step: Step | None = None) -> Subject:
        """Let a checkpoint stand for its subject from now on.

        Args:
            subject: its id.
            job: the id of one of its trainings.
            step: one that checkpoints lists; null is the training's end.

        Returns:
            The subject.
        """
        self.studio.subjects.choose(subject, job, step)
        return self.studio.subjects.get(subject)

    def cancel(self, job: str) -> Job:
        """Take a training out of the queue, or have it save and end. What it learnt is kept; resume goes on with it.

        Args:
            job: its id.

        Returns:
            The job; its state changes when the trainer has left.
        """
        return self.studio.jobs.cancel(job)

    def resume(self, job: str) -> Job:
        """Go on with a training that was cancelled or interrupted, exactly where it was.

        Args:
            job: its id.

        Returns:
            The job, in the queue again.
        """
        return self.studio.jobs.resume(job)

    def remedy(self, job: str, name: str) -> Job:
        """Do what helps against a training's failure.

        Args:
            job: the id of a failed training.
            name: the name of one of its failure's remedies, for example halve_batch.

        Returns:
            The job that goes on, which may be a new one.
        """
        return self.studio.jobs.apply(job, name)

    def remove_job(self, job: str) -> str:
        """Forget a training that has ended, and free the space of its checkpoints. They cannot be brought back.

        Args:
            job: its id.

        Returns:
            The id.
        """
        self.studio.jobs.remove(job)
        return job
