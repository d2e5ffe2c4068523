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
from dora_diffusion.errors import MachineError, ModelError

USUAL = 512  # pixels; that of SD 1.x, and the least that bases of full size were trained at


def run(arguments: list[str]) -> int:
    """Print the diagnosis. Returns 2 if a photo cannot be used, else 0.

    Raises:
        DoraError: a flag is wrong, or the folder of the photos is.
    """
    config = parse(DoctorConfig, arguments, command="doctor")
    document = _machine() | {"photos": _photos(config.instance_data_dir, config) if config.instance_data_dir else None}
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
        broken = machine.Missing("everything", str(error), "pip install dora-diffusion")
        missing.insert(0, asdict(broken))
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "devices": devices,
        "memory": asdict(machine.memory()),
        "free_disk_gib": machine.free_disk_gib(Path()),
        "attention": attention,
        "versions": machine.versions(),
        "missing": missing,
    }


def _photos(folder: Path, config: DoctorConfig) -> dict[str, Any]:
    resolution, why = _resolution(config)
    reports = check_photos(folder, resolution)
    return {
        "folder": str(folder),
        "resolution": resolution,
        "resolution_of": why,
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


def _resolution(config: DoctorConfig) -> tuple[int, str]:
    """Side in pixels that the photos are judged for, and whose it is."""
    base = config.pretrained_model_name_or_path
    if config.resolution is not None:
        return config.resolution, "as asked for"
    if (own := _own_resolution(base)) is not None:
        return own, f"{base}'s own"
    return USUAL, f"a guess, since nothing here tells that of {base}; --resolution says another"


def _own_resolution(base: str) -> int | None:
    """The base's, from its folder or from what the hub's client keeps of it; None where neither tells."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        from dora_diffusion.models import resolve

        folder = Path(resolve(base))
        configs = []
        for part in ("unet", "vae"):
            file = f"{part}/config.json"
            kept = folder / file if folder.is_dir() else try_to_load_from_cache(base, file)
            configs.append(json.loads(Path(str(kept)).read_text(encoding="utf-8")))
        unet, vae = configs
        return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (ImportError, HFValidationError, ModelError, OSError, ValueError, TypeError, KeyError):
        return None


def _lines(document: dict[str, Any]) -> Iterator[str]:
    if document["photos"]:  # what was asked for comes first
        yield from _photo_lines(document["photos"])
        yield ""
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
    if needed := _gaps(document, optional=False):
        yield from _table("Missing", needed)
    yield from _table("Attention", document["attention"].items())
    yield from _table("Versions", [(name, version or "-") for name, version in document["versions"].items()])
    yield from _table("Not installed, and needed by these alone", _gaps(document, optional=True))


def _gaps(document: dict[str, Any], optional: bool) -> list[tuple[str, str]]:
    found = [gap for gap in document["missing"] if gap["optional"] is optional]
    return [(gap["feature"], f"{gap['missing']}: {gap['install']}") for gap in found]


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
    yield f"Photos in {photos['folder']} (for training at {photos['resolution']} pixels, {photos['resolution_of']})"
    for report in photos["reports"]:
        size = f"{report['size'][0]} x {report['size'][1]}" if report["size"] else "?"
        verdict = "good" if not report["findings"] else "usable" if report["usable"] else "cannot be used"
        yield f"  {names[report['path']]:<{width}}  {size:<13}  {verdict}"
        yield from (f"    {finding['severity']}: {finding['message']}" for finding in report["findings"])
    yield from (f"  {finding['severity']}: {finding['message']}" for finding in photos["findings"])
