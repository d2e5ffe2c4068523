"""Endpoints about what a subject is for: pictures, comparisons and files for other programs."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import gradio as gr
from pydantic import Field

from dora_diffusion.studio.comparisons import Mode
from dora_diffusion.studio.exports import MAX_RANK, FormatNote
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.ui.endpoints.answers import ExportDetails, GridDetails, export_details, file
from dora_diffusion.studio.ui.endpoints.boundary import Limit, Offset, Step

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


class MakingEndpoints:
    """What is made with them."""

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.at_once = (
            self.history,
            self.formats,
        )
        self.in_line = (
            self.generate,
            self.compare,
            self.export,
        )

    def history(self, subject: str | None = None, limit: Limit = 24, offset: Offset = 0) -> list[Order]:
        """What was drawn, the newest first.

        Args:
            subject: only its pictures; "" is those of base models alone, null is everybody's.
            limit: how many at most, 1 to 200.
            offset: how many of the newest to leave out.

        Returns:
            The settings of each picture; generate draws it again from them.
        """
        return [picture.order for picture in self.studio.pictures.history(subject, limit, offset)]

    def formats(self, subject: str | None = None) -> list[FormatNote]:
        """The formats of export.

        Args:
            subject: its id: programs that are not right on its base are left out; null tells of the published models.

        Returns:
            name, what it is, the programs that read it right (there may be none), and what it does not carry.
        """
        return self.studio.exports.formats(subject)

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
        rank: Annotated[int, Field(ge=1, le=MAX_RANK)] | None = None,
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
