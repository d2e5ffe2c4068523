"""The studio for programs: what the page can do, as typed endpoints for ``gradio_client`` and MCP.

A method of ``Api`` is an endpoint: its hints are the types that clients are shown, its docstring is their
documentation, and the service checks what they send. Errors come as plain words (``gradio_client`` raises AppError).
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import gradio as gr
from pydantic import Field

from dora_diffusion.studio.bases import Base, BaseCheck
from dora_diffusion.studio.comparisons import Mode
from dora_diffusion.studio.estimates import Estimate
from dora_diffusion.studio.exports import FormatNote
from dora_diffusion.studio.jobs import Job, State
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.subjects import Subject
from dora_diffusion.studio.ui.answers import (
    ExportDetails,
    GridDetails,
    SubjectDetails,
    export_details,
    file,
    photo,
)
from dora_diffusion.studio.ui.boundary import endpoint
from dora_diffusion.studio.ui.shared import WORK
from dora_diffusion.studio.ui.uploads import received

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio

# Answers come at once, however many wait for pictures: no queue for plain HTTP and MCP, no limit for gradio_client,
# which takes the queue always.
AT_ONCE: dict[str, Any] = {"queue": False, "concurrency_limit": None}
# In one line with what the page draws.
IN_LINE: dict[str, Any] = {name: WORK[name] for name in ("concurrency_id", "concurrency_limit")}

Limit = Annotated[int, Field(ge=1, le=200)]
Offset = Annotated[int, Field(ge=0, le=10**9)]
Step = Annotated[int, Field(ge=0, le=10**9)]


def build_api(studio: "Studio") -> None:
    """Add the endpoints to the Blocks that are being built."""
    api = Api(studio)
    for line, functions in ((AT_ONCE, api.answered_at_once), (IN_LINE, api.answered_in_line)):
        for function in functions:
            gr.api(endpoint(function, studio.home.log_file), api_name=function.__name__, **line)


class Api:
    """The endpoints over a studio."""

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.answered_at_once = (
            self.list_subjects,
            self.subject,
            self.create_subject,
            self.samples,
            self.create_sample,
            self.delete_subject,
            self.restore_subject,
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
            self.history,
            self.formats,
            self.bases,
        )
        # A base is checked by loading parts of it, where pictures are drawn.
        self.answered_in_line = (self.generate, self.compare, self.export, self.check_base, self.add_base)

    def list_subjects(self) -> list[Subject]:
        """The subjects, the one that was worked on last first.

        Returns:
            id, name, class_noun, trigger, base and times (UTC seconds) of each.
        """
        return self.studio.subjects.list()

    def subject(self, subject: str) -> SubjectDetails:
        """Everything about one subject.

        Args:
            subject: its id, for example rex-1.

        Returns:
            The subject, the words a prompt calls it by, its photos with what is to be said of each, and its trainings.
        """
        found = self.studio.subjects.get(subject)
        return {
            "subject": found,
            "words": found.words,
            "is_trained": self.studio.subjects.adapter(subject) is not None,
            "photos": [photo(note) for note in self.studio.subjects.photos(subject)],
            "jobs": self.studio.jobs.of_subject(subject),
        }

    def create_subject(
        self, files: list[gr.FileData], class_noun: str, name: str = "", trigger: str = "", base: str = "toybox"
    ) -> Subject:
        """Make a subject from photos of it.

        Args:
            files: 3 to 20 do best; handle_file(path) of gradio_client, or data:image/jpeg;base64,…; no web addresses.
            class_noun: what it is, in one or two words: dog, teapot, toy robot.
            name: what you call it; left empty, the class noun and a number.
            trigger: the rare word that will stand for it in prompts; left empty, sks.
            base: the base model to teach, a name that bases lists.

        Returns:
            The new subject; its id is what the other endpoints ask for.
        """
        with received(files, self.studio.home.tmp) as photos:
            return self.studio.subjects.create(photos, name, class_noun, trigger, base)

    def samples(self) -> list[str]:
        """The sample subjects that come with the studio.

        Returns:
            Their names, for create_sample.
        """
        return self.studio.subjects.samples()

    def create_sample(self, sample: str) -> Subject:
        """Make a subject from one of the samples' photos.

        Args:
            sample: a name that samples lists.

        Returns:
            The new subject.
        """
        return self.studio.subjects.create_from_sample(sample)

    def delete_subject(self, subject: str, name: str) -> str:
        """Move a subject to the trash, where it stays for 7 days.

        Args:
            subject: its id.
            name: its name, typed once more, so that no other one is deleted by mistake.

        Returns:
            What was done.
        """
        self.studio.subjects.delete(subject, name)
        return f"{subject} is in the trash for 7 days; restore_subject takes it out."

    def restore_subject(self, subject: str) -> Subject:
        """Take a subject out of the trash.

        Args:
            subject: its id.

        Returns:
            The subject.
        """
        return self.studio.subjects.restore(subject)

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

    def history(self, subject: str | None = None, limit: Limit = 24, offset: Offset = 0) -> list[Order]:
        """What was drawn, the newest first.

        Args:
            subject: only its pictures; null is everybody's.
            limit: how many at most, 1 to 200.
            offset: how many of the newest to leave out.

        Returns:
            The settings of each picture; generate draws it again from them.
        """
        return [picture.order for picture in self.studio.pictures.history(subject, limit, offset)]

    def formats(self) -> list[FormatNote]:
        """The formats of export.

        Returns:
            name, what it is, the programs that read it right, and what it does not carry.
        """
        return self.studio.exports.formats()

    def bases(self) -> list[Base]:
        """The base models that subjects can be taught to.

        Returns:
            name, label, family, where it lies, picture size in pixels, and whether it has gone missing.
        """
        return self.studio.bases.list()

    def check_base(self, name: str) -> BaseCheck:
        """Whether a model can be used as a base. Nothing is kept or downloaded. Waits in line: it reads the model.

        Args:
            name: a folder, a .safetensors file or a name of the hub.

        Returns:
            ok, and in words what was found or is missing.
        """
        return self.studio.bases.check(name)

    def generate(
        self,
        subject: str | None,
        prompt: str,
        seed: int = 0,
        count: int = 1,
        strength: float = 1.0,
        negative_prompt: str = "",
        num_inference_steps: int = 25,
        guidance_scale: float | None = None,
        sampler: str = "model",
        width: int | None = None,
        height: int | None = None,
        job: str | None = None,
        step: Step | None = None,
        base: str = "toybox",
    ) -> tuple[list[gr.FileData], list[Order]]:
        """Draw pictures. Waits in line while others draw.

        Args:
            subject: its id; null draws with the base alone.
            prompt: what it shall show; <name>, or the subject's words, puts the subject in.
            seed: of the first picture, each next one has the seed after it; -1 is a random one.
            count: how many, 1 to 8.
            strength: of what was learnt, 0 (the base) to 1.5.
            negative_prompt: what it shall not show.
            num_inference_steps: 1 to 150.
            guidance_scale: 0 to 30; null is what suits the base.
            sampler: model is the base's own.
            width: pixels, a multiple of 8; null is the base's own.
            height: the same.
            job: the id of one of the subject's trainings, to draw with a checkpoint of it.
            step: that checkpoint's step.
            base: the base model, where there is no subject.

        Returns:
            The pictures (PNG, with their settings inside), and of each the settings that draw it again.
        """
        order = Order(
            subject_id=subject,
            base=base,
            job_id=job,
            step=step,
            prompt=prompt,
            negative_prompt=negative_prompt,
            strength=strength,
            seed=seed,
            num_images=count,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            width=width,
            height=height,
        )
        pictures = list(self.studio.pictures.draw(order))
        return [file(picture.path) for picture in pictures], [picture.order for picture in pictures]

    def compare(
        self,
        subject: str,
        prompt: str,
        mode: Mode = "base",
        values: list[float] | None = None,
        seeds: list[int] | None = None,
        strength: float = 1.0,
        seed: int = 0,
        num_inference_steps: int = 25,
        job: str | None = None,
    ) -> tuple[gr.FileData, GridDetails]:
        """Draw a grid in which one thing changes. Waits in line while others draw.

        Args:
            subject: its id.
            prompt: what every cell shall show.
            mode: what changes from column to column: base, strengths, seeds or checkpoints.
            values: the strengths, seeds or steps; base needs none.
            seeds: a row for each; left out, one row.
            strength: of every cell, unless strengths change.
            seed: of every cell, where seeds is left out.
            num_inference_steps: 1 to 150.
            job: the training whose checkpoints are compared.

        Returns:
            The grid as one PNG with headers, and what draws each cell again. At most 36 cells.
        """
        order = Order(
            subject_id=subject,
            job_id=job,
            prompt=prompt,
            strength=strength,
            seed=seed,
            num_inference_steps=num_inference_steps,
        )
        comparisons = self.studio.comparisons
        grid = comparisons.plan(mode, order, values or (), seeds or ())
        for _ in comparisons.draw(grid):
            pass
        details: GridDetails = {
            "mode": grid.mode,
            "rows": grid.rows,
            "columns": grid.columns,
            "cells": [cell.order for cell in grid.cells],
        }
        return file(comparisons.save(grid)), details

    def export(
        self,
        subject: str,
        format: str,
        precision: Literal["fp32", "fp16", "bf16"] = "fp32",
        strength: float = 1.0,
        rank: Annotated[int, Field(ge=1, le=1024)] | None = None,
        job: str | None = None,
        step: Step | None = None,
    ) -> tuple[gr.FileData, ExportDetails]:
        """Write what was learnt as a file for other programs, and prove it by their rules. Waits in line.

        Args:
            subject: its id.
            format: a name that formats lists.
            precision: of the numbers in the file.
            strength: of what is merged; other formats carry all of it.
            rank: of a plain LoRA.
            job: the id of one of its trainings, to export a checkpoint of it.
            step: that checkpoint's step.

        Returns:
            The file, and what each reader makes of it. A file that a reader gets wrong is refused, and none is left.
        """
        settings: dict[str, Any] = {"precision": precision, "strength": strength, "rank": rank}
        export = self.studio.exports.export(subject, format, job_id=job, step=step, **settings)
        return file(export.path), export_details(export)

    def add_base(self, name: str, download: bool = False) -> Base:
        """Check a base model, and keep it in the list. Waits in line, since it reads the model.

        Args:
            name: a folder, a .safetensors file or a name of the hub.
            download: let a name of the hub be downloaded; else it must be in this machine's cache.

        Returns:
            The base; its name is what create_subject asks for.
        """
        return self.studio.bases.add(name, download)
