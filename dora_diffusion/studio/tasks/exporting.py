"""Export: a file, or a .zip of several, proved before anybody may have it."""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from dora_diffusion.adapters import AdapterState, merged_weights
from dora_diffusion.config import ExportConfig, MergeConfig
from dora_diffusion.errors import FormatError
from dora_diffusion.formats import WEIGHTS_NAME, adapter_file, load_adapter
from dora_diffusion.formats import export as export_adapter
from dora_diffusion.formats.base_files import BaseFiles, open_base
from dora_diffusion.formats.verify import Verification, first_fault, readers_of
from dora_diffusion.inference import merge
from dora_diffusion.inference.device import PRECISIONS
from dora_diffusion.registry import FORMATS
from dora_diffusion.studio.export_formats import MERGED_FILE, MERGED_FOLDER, ONE_FILE
from dora_diffusion.studio.exports import Verdict
from dora_diffusion.studio.tasks.desk import Desk

# A cast to half precision moves a number by at most half a unit in its last place.
_BOUND = {"fp32": 1e-6, "fp16": 2.0**-11, "bf16": 2.0**-8}


def export(
    desk: Desk,
    *,
    adapter: str,
    base: str,
    format: str,
    precision: str,
    strength: float,
    rank: int | None,
    folder: str,
    stem: str,
) -> dict[str, Any]:
    """Write the export into an empty ``folder``: {"file", "size", "sha256", "verdicts"}.

    Raises:
        FormatError: it would not be drawn right.
    """
    place = Path(folder)
    source = _with_settings(adapter_file(Path(adapter)))
    desk.check_stop()
    desk.tell("note", text="Writing the file and proving it.")
    if format in (MERGED_FOLDER, MERGED_FILE):
        desk.let_go()  # a whole model is read besides
        made, verdicts = _merged(source, base, place / stem, precision, strength, single_file=format == MERGED_FILE)
    else:
        made, verdicts = _adapter(source, base, place / stem, format, precision, rank)
    desk.check_stop()
    file = made if _is_alone(made, place) else _zipped(place, stem, desk)
    return {
        "file": file.name,
        "size": file.stat().st_size,
        "sha256": _sha256(file),
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }


def _with_settings(file: Path) -> Path:
    """The run's folder, for its own file: how it was trained then goes into the header."""
    return file.parent if file.name == WEIGHTS_NAME else file


def _adapter(
    source: Path, base: str, output: Path, format: str, precision: str, rank: int | None
) -> tuple[Path, list[Verdict]]:
    found: list[Verification] = []
    made = export_adapter(
        ExportConfig(
            adapter=source,
            format=format,
            output=output.with_name(output.name + FORMATS.load(format).suffix),
            pretrained_model_name_or_path=base,
            precision=precision,  # type: ignore[arg-type]
            rank=rank,
        ),
        on_proved=found.extend,
    )
    return made, [_verdict(one, one.reader in readers_of(format)) for one in found]


def _verdict(found: Verification, must: bool) -> Verdict:
    return Verdict(found.reader, found.is_right, _counted(found), found.worst_error, found.worst_of_change, must)


def _counted(found: Verification) -> str:
    """How many layers are right, and of the others why; the adapter's layers add up."""
    if found.refusal:
        return first_fault(found)
    own = [layer for layer in found.layers if layer.expected]
    right = sum(layer.within for layer in own)
    if found.is_right:
        return f"{right} of {found.expected} layers"
    misread = sum(layer.taken and not layer.within for layer in own)
    others = len(found.wrong) - (len(own) - right)
    counts = {"read wrong": misread, "not read": len(own) - right - misread, "changed besides": others}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{right} of {found.expected} layers right, {said}: {'; '.join(found.remarks) or first_fault(found)}"


def _merged(
    source: Path, base: str, output: Path, precision: str, strength: float, *, single_file: bool
) -> tuple[Path, list[Verdict]]:
    made = merge(
        MergeConfig(
            adapter=source,
            output_dir=output,
            single_file=single_file,
            pretrained_model_name_or_path=base,
            strength=strength,
            precision=precision,  # type: ignore[arg-type]
        )
    )
    state, files = load_adapter(source), open_base(base)
    written: Mapping[str, Tensor] = _Written(made, files) if single_file else open_base(str(made)).weights
    worst, of_change = _worst(state, files.weights, written, strength, PRECISIONS[precision])
    if worst > _BOUND[precision]:
        raise FormatError(f"The merged model is off by {worst:.1e} of its weights, and was not kept. Export it again.")
    words = f"{len(files.weights)} layers read back"
    reader = ONE_FILE if single_file else "diffusers"
    return made, [Verdict(reader, True, words, worst, of_change, True)]


def _worst(
    state: AdapterState,
    weights: Mapping[str, Tensor],
    written: Mapping[str, Tensor],
    strength: float,
    dtype: torch.dtype,
) -> tuple[float, float]:
    """The worst layer's error of ``||W'||`` and of ``||W' - W0||``; untouched layers count in the first."""
    worst = of_change = 0.0
    for name, weight in weights.items():
        wanted = weight
        if name in state.layers and strength:
            alone = AdapterState(state.kind, {name: state.layers[name]})
            ((_, wanted),) = merged_weights(alone, {name: weight}, strength)
        error = float((written[name].float() - wanted).norm())
        worst = max(worst, error / max(float(wanted.norm()), 1e-30))
        if wanted is not weight:
            of_change = max(of_change, error / max(float((wanted - weight).norm()), 1e-30))
    return worst, of_change


class _Written(Mapping[str, Tensor]):
    """The layers in a checkpoint file, where the base has them."""

    def __init__(self, file: Path, base: BaseFiles):
        self._file, self._base = file, base

    def __getitem__(self, name: str) -> Tensor:
        place = self._base.places[name]
        with safe_open(self._file, framework="pt") as tensors:
            taken: Tensor = place.take(tensors.get_tensor(place.key))
            return taken

    def __iter__(self) -> Iterator[str]:
        return iter(self._base.places)

    def __len__(self) -> int:
        return len(self._base.places)


def _is_alone(made: Path, place: Path) -> bool:
    """Whether one file is all there is: no folder, and no embedding of a learnt trigger beside it."""
    return made.is_file() and [path for path in place.iterdir() if not path.name.startswith(".")] == [made]


def _zipped(place: Path, stem: str, desk: Desk) -> Path:
    """Everything in ``place`` as one .zip, not compressed: weights do not get smaller. The files themselves go."""
    target = place / f"{stem}.zip"
    files = sorted(path for path in place.rglob("*") if path.is_file())
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            desk.check_stop()
            archive.write(file, file.relative_to(place))
            file.unlink()
    for folder in sorted((path for path in place.rglob("*") if path.is_dir()), reverse=True):
        folder.rmdir()
    return target


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
