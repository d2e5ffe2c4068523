"""What the endpoints for programs answer with, beside the service's own types, and how it becomes JSON."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from typing_extensions import TypedDict

from dora_diffusion.studio.exports import Export, Verdict
from dora_diffusion.studio.jobs import Job
from dora_diffusion.studio.orders import Order
from dora_diffusion.studio.subjects import PhotoNote, Subject


class Photo(TypedDict):
    """A photo of a subject, and what is to be said about it, a sentence each."""

    name: str
    given_name: str
    findings: tuple[str, ...]


class SubjectDetails(TypedDict):
    """A subject with everything that belongs to it; ``words`` is what a prompt calls it."""

    subject: Subject
    words: str
    is_trained: bool
    photos: list[Photo]
    jobs: list[Job]


class GridDetails(TypedDict):
    """A comparison: its headers, and what draws each cell again, row by row."""

    mode: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: list[Order]


class ExportDetails(TypedDict):
    """An export that was proved: what each reader makes of it, size in bytes, and what is worth knowing."""

    id: str
    subject_id: str
    format: str
    precision: str
    size: int
    sha256: str
    verdicts: tuple[Verdict, ...]
    seconds: float
    note: str


def photo(note: PhotoNote) -> Photo:
    """A photo without its files."""
    return {"name": note.name, "given_name": note.given_name, "findings": note.findings}


def export_details(export: Export) -> ExportDetails:
    """An export without its file."""
    return {
        "id": export.id,
        "subject_id": export.subject_id,
        "format": export.format,
        "precision": export.precision,
        "size": export.size,
        "sha256": export.sha256,
        "verdicts": export.verdicts,
        "seconds": export.seconds,
        "note": export.note,
    }


def file(path: Path) -> gr.FileData:
    """A file of the media folder, as clients download it."""
    return gr.FileData(path=str(path), orig_name=path.name)


def as_json(value: Any) -> Any:
    """``value`` of dataclasses, files, mappings and lists as what JSON knows."""
    if isinstance(value, gr.FileData):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return value
