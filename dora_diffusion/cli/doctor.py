"""``dora-diffusion doctor``: what this machine has, what it lacks, and whether the photos are fit for training."""

import json
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dora_diffusion import machine
from dora_diffusion.cli.parse import parse
from dora_diffusion.config import DoctorConfig
from dora_diffusion.data.checks import caption_findings, check_photos, folder_findings
from dora_diffusion.errors import MachineError


def run(arguments: list[str]) -> int:
    """Print the diagnosis. Returns 2 if a photo cannot be used, else 0.

    Raises:
        DoraError: a flag is wrong, or the folder of the photos is.
    """
    config = parse(DoctorConfig, arguments, command="doctor")
    document = _machine() | {
        "photos": _photos(config.instance_data_dir, config.resolution) if config.instance_data_dir else None
    }
    text = json.dumps(document, indent=2) if config.as_json else "\n".join(_lines(document))
    # A file name may hold bytes that are no text in any encoding; they are shown escaped rather than crash the doctor.
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    reports = document["photos"]["reports"] if document["photos"] else []
    return 0 if all(report["usable"] for report in reports) else 2


def _machine() -> dict[str, Any]:
    """The machine as JSON values. A broken torch is a finding: finding such things out is what the doctor is for."""
    missing = [asdict(gap) for gap in machine.missing_for()]
    devices: list[dict[str, Any]] = []
    attention: dict[str, str] = {}
    try:
        devices = [asdict(device) for device in machine.devices()]
        from dora_diffusion.models.attention import probe_backends

        attention = probe_backends()
    except (MachineError, ImportError) as error:
        missing.insert(0, {"feature": "everything", "missing": str(error), "install": "pip install dora-diffusion"})
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "devices": devices,
        "memory": asdict(machine.memory()),
        "free_disk_gib": machine.free_disk_gib(Path()),
        "attention": attention,
        "versions": machine.versions(),
        "missing": missing,
    }


def _photos(folder: Path, resolution: int) -> dict[str, Any]:
    reports = check_photos(folder, resolution)
    return {
        "folder": str(folder),
        "resolution": resolution,
        "findings": [asdict(finding) for finding in [*folder_findings(reports), *caption_findings(folder)]],
        "reports": [
            {
                "path": str(report.path),
                "size": report.size,
                "usable": report.usable,
                "findings": [asdict(finding) for finding in report.findings],
            }
            for report in reports
        ],
    }


def _lines(document: dict[str, Any]) -> Iterator[str]:
    memory = document["memory"]
    yield from _table(
        "Machine",
        [
            ("system", document["system"]),
            ("memory", f"{memory['available_gib']:.1f} of {memory['total_gib']:.1f} GiB free"),
            ("disk", f"{document['free_disk_gib']:.1f} GiB free in this folder"),
        ],
    )
    yield from _table("Devices", [(device["place"], _device(device)) for device in document["devices"]])
    yield from _table("Attention", document["attention"].items())
    yield from _table("Versions", [(name, version or "-") for name, version in document["versions"].items()])
    yield from _table(
        "Missing", [(gap["feature"], f"{gap['missing']}: {gap['install']}") for gap in document["missing"]]
    )
    if document["photos"]:
        yield from _photo_lines(document["photos"])


def _device(device: dict[str, Any]) -> str:
    speed = "bf16 in hardware" if device["bf16"] else "no bf16 in hardware"
    return f"{device['name']}, {device['free_gib']:.1f} of {device['total_gib']:.1f} GiB free, {speed}"


def _table(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A title and its rows, names padded to one width; an empty table says so."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    yield title
    yield from (f"  {name:<{width}}  {value}" for name, value in rows)
    if not rows:
        yield "  nothing"
    yield ""


def _photo_lines(photos: dict[str, Any]) -> Iterator[str]:
    names = {report["path"]: Path(report["path"]).name for report in photos["reports"]}
    width = max(len(name) for name in names.values())
    yield f"Photos in {photos['folder']} (for training at {photos['resolution']} pixels)"
    for report in photos["reports"]:
        size = f"{report['size'][0]} x {report['size'][1]}" if report["size"] else "?"
        verdict = "good" if not report["findings"] else "usable" if report["usable"] else "cannot be used"
        yield f"  {names[report['path']]:<{width}}  {size:<13}  {verdict}"
        yield from (f"    {finding['severity']}: {finding['message']}" for finding in report["findings"])
    yield from (f"  {finding['severity']}: {finding['message']}" for finding in photos["findings"])
