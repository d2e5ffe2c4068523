"""What Export shows: the formats in words, a proved file with its readers' verdicts, and the earlier ones."""

from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from dora_diffusion.studio.export_formats import ONE_FILE
from dora_diffusion.studio.ui.cards import size_words
from dora_diffusion.studio.ui.html import button, link_to
from dora_diffusion.studio.ui.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dora_diffusion.studio.exports import Export, FormatNote, Verdict


def formats_html(formats: "Sequence[FormatNote]", chosen: str) -> str:
    """HTML of what the formats are for, the chosen one marked."""
    rows = "".join(
        f'<tr data-format="{escape(note.name)}"{" class=chosen aria-current=true" if note.name == chosen else ""}>'
        f'<th scope="row">{"✓ " if note.name == chosen else ""}{escape(note.name)}</th><td>{escape(note.what)}</td>'
        f"<td>{escape(', '.join(note.readers) or 'no program on this base')}</td>"
        f"<td>{escape(note.cannot or 'nothing')}</td></tr>"
        for note in formats
    )
    return table("export-formats", "Formats", ("Format", "What it is", "Read by", "What it lacks"), rows)


def is_proved(export: "Export") -> bool:
    """Whether every reader that the file is for makes the right weights of it, and there is one."""
    must = [verdict for verdict in export.verdicts if verdict.must]
    return bool(must) and all(verdict.ok for verdict in must)


READERS = {
    "comfyui": "ComfyUI",
    "forge": "Forge",
    "a1111": "A1111",
    "lycoris": "LyCORIS",
    "sd_scripts": "sd-scripts",
    "peft": "PEFT",
}


def reader_name(verdict: "Verdict") -> str:
    """A reader as people call it."""
    return READERS.get(verdict.reader, verdict.reader)


def proof_words(export: "Export") -> tuple[str, tuple[str, ...]]:
    """For whom the file is proved, in a clause, and for whom it is not, a clause each."""
    if not is_proved(export):
        return "not proved", ()
    right = [reader_name(verdict) for verdict in export.verdicts if verdict.ok and verdict.reader != ONE_FILE]
    wrong = tuple(reader_name(verdict) for verdict in export.verdicts if not verdict.ok)
    return f"proved for {', '.join(right)}" if right else "proved by reading it back", wrong


def result_html(export: "Export", name: str) -> str:
    """HTML of one export: what it is, who reads it right, and the file."""
    proved = is_proved(export)
    said, _ = proof_words(export)
    head = f"✓ P{escape(said[1:])}." if proved else "✗ Not proved: do not pass this file on"
    others = "".join(
        f'<p role="note">✗ <b>Not right in {escape(reader_name(verdict))}</b>: {escape(verdict.words)}</p>'
        for verdict in export.verdicts
        if proved and not verdict.ok
    )
    rows = "".join(_verdict(verdict) for verdict in export.verdicts)
    verdicts = table("export-verdicts", "Verdicts", ("Reader", "Verdict", "Worst layer", "Of its change"), rows)
    file, made = escape(export.path.name), f"{datetime.fromtimestamp(export.created):%d %b %Y, %H:%M}"
    download = (
        f'<a class="act primary" href="{escape(link_to(export.path))}" download="{file}">Download</a>' if proved else ""
    )
    note = f'<p class="note" role="note">{escape(export.note)}</p>' if export.note else ""
    return (
        f'<div id="export-result" data-proved="{str(proved).lower()}" data-export="{escape(export.id)}">'
        f'<h3 class="verdict" role="status">{head}</h3>{others}'
        f'<dl class="facts"><dt>File</dt><dd>{file}</dd><dt>Subject</dt><dd>{escape(name)}</dd>'
        f"<dt>Format</dt><dd>{escape(export.format)}, {escape(export.precision)}</dd>"
        f"<dt>Size</dt><dd>{size_words(export.size)}</dd><dt>SHA-256</dt><dd><code>{escape(export.sha256)}</code></dd>"
        f"<dt>Made</dt><dd>{made}, in {export.seconds:.1f} s</dd></dl>"
        f'{note}{verdicts}<p class="acts">{download}</p></div>'
    )


def _verdict(verdict: "Verdict") -> str:
    sign = "✓" if verdict.ok else "✗"
    return (
        f'<tr data-reader="{escape(verdict.reader)}" data-ok="{str(verdict.ok).lower()}">'
        f'<th scope="row">{escape(reader_name(verdict))}</th>'
        f'<td><span aria-hidden="true">{sign}</span> {escape(verdict.words)}</td>'
        f"<td>{verdict.worst:.1e}</td><td>{verdict.worst_of_change:.1e}</td></tr>"
    )


def earlier_html(exports: "Sequence[Export]", names: dict[str, str], asks: str) -> str:
    """HTML of the exports made so far; ``asks``: the one whose deletion is to be confirmed."""
    if not exports:
        return '<p class="empty" id="export-none">Nothing was exported yet.</p>'
    rows = "".join(
        _earlier(export, names.get(export.subject_id, export.subject_id), export.id == asks) for export in exports
    )
    return table("export-earlier", "Earlier exports", ("File", "Subject", "Size", "Made", "Proof", "Do"), rows)


def _earlier(export: "Export", name: str, asks: bool) -> str:
    said, wrong = proof_words(export)
    proof = f"{'✓' if is_proved(export) else '✗'} {said}" + "".join(f" · ✗ not for {name}" for name in wrong)
    file = escape(export.path.name)
    show = button("Show", "show", "", f"Show {export.path.name}", id=export.id)
    delete = button("Delete", "delete", "stop", f"Delete {export.path.name}", id=export.id)
    if asks:
        show = button("Delete it", "delete-yes", "stop", f"Delete {export.path.name} for good", id=export.id)
        delete = button("Keep it", "keep", id=export.id)
    return (
        f'<tr data-export="{escape(export.id)}"><th scope="row">{file}</th><td>{escape(name)}</td>'
        f"<td>{size_words(export.size)}</td><td>{datetime.fromtimestamp(export.created):%d %b, %H:%M}</td>"
        f"<td>{escape(proof)}</td><td>{show}{delete}</td></tr>"
    )
