"""Stage "pack": the folder that is shipped, put together from what the other stages wrote."""

import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dora_diffusion.errors import TrainingError
from dora_diffusion.toybox import architecture
from dora_diffusion.toybox.recipe.card import card
from dora_diffusion.toybox.recipe.loop import STATE_FILE, Log, read_state
from dora_diffusion.toybox.recipe.settings import PackSettings
from dora_diffusion.toybox.recipe.unpack import PLACES, STATES_FILE

MOST_BYTES, MOST_FILE_BYTES = 44_000_000, 15_000_000  # of the whole, and of one file


def pack(
    settings: PackSettings, work_dir: Path, from_dir: Path | None, device: str, minutes: float | None, log: Log
) -> Path:
    """Write a plain ``StableDiffusionPipeline`` folder with fp16 weights, the eye beside it, and a model card.

    Args:
        work_dir: the folder to write; what is there is replaced.
        from_dir: the work folder: it holds ``autoencoder``, ``diffusion`` and, if there is one, ``eye``.
        device, minutes: not used: packing takes seconds on a CPU.

    Raises:
        TrainingError: a part is missing, or the result is too large to be shipped.
        ModelError: a part is damaged.
    """
    root = from_dir or work_dir.parent
    places = {
        "vae": root / "autoencoder" / "vae",
        "text_encoder": root / "diffusion" / "ema" / "text_encoder",
        "unet": root / "diffusion" / "ema" / "unet",
    }
    for kind, place in places.items():
        if not place.is_dir():
            stage = place.relative_to(root).parts[0]
            raise TrainingError(f"There is no {kind} to pack: {place} is missing. Run the stage {stage} first.")
    parts = {kind: architecture.load_part(kind, place) for kind, place in places.items()}
    words = architecture.tokenizer(root / "diffusion" / "tokenizer")
    architecture.save(architecture.pipeline(tokenizer=words, **parts), work_dir)
    _copy_eye(root / "eye", work_dir, log)
    known = [name for name in PLACES if name != "eye" or (root / "eye" / STATE_FILE).is_file()]
    states = {name: read_state(root / name) for name in known}
    (work_dir / STATES_FILE).write_text(json.dumps(states, indent=1) + "\n", encoding="utf-8")
    sizes = {kind: sum(weight.numel() for weight in part.parameters()) for kind, part in parts.items()}
    text = card(states, sizes, file_sizes(work_dir), _figures(settings.figures))
    (work_dir / "README.md").write_text(text, encoding="utf-8")
    _check_sizes(work_dir, log)
    if settings.parts:
        paths = write_parts(root, settings.parts, root / "parts", settings.part_size)
        log(f"{len(paths)} parts in {root / 'parts'}; put together: cat *.tar.part* | tar x")
    return work_dir


def _copy_eye(source: Path, target: Path, log: Log) -> None:
    if not (source / "eye.safetensors").is_file():
        log("there is no eye yet: it is left out")
        return
    for packed, name in PLACES["eye"].items():
        if (source / name).is_file():  # what its acceptance found may be missing
            (target / packed).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / packed)


def write_parts(root: Path, names: Sequence[str], folder: Path, size: int) -> list[Path]:
    """Write the files and folders ``names`` of ``root`` as one tar file, cut into ``folder``'s ``*.tar.partNN``.

    The same content gives the same bytes.

    Raises:
        TrainingError: a name is not there.
    """
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name in names:
            path = root / name
            if not path.exists():
                raise TrainingError(f"There is no {name} in {root} to write in parts.")
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            for file in files:
                entry = tarfile.TarInfo(str(file.relative_to(root)))
                entry.size = file.stat().st_size
                with file.open("rb") as content:
                    tar.addfile(entry, content)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tape = whole.getvalue()
    paths = []
    for number, start in enumerate(range(0, len(tape), size)):
        paths.append(folder / f"toybox.tar.part{number:02d}")
        paths[-1].write_bytes(tape[start : start + size])
    return paths


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file, by its path inside ``folder``."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _figures(path: Path | None) -> Mapping[str, Any]:
    """Further lines of the card's table.

    Raises:
        TrainingError: the file is missing, or is not JSON by name.
    """
    if path is None:
        return {}
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(figures, dict):
        raise TrainingError(f"{path} must hold figures by name, got a {type(figures).__name__}.")
    return figures


def _check_sizes(folder: Path, log: Log) -> None:
    """Raises: TrainingError: the folder, or a file of it, is larger than what may be shipped."""
    sizes = file_sizes(folder)
    total = sum(sizes.values())
    log(f"{folder.name}: {len(sizes)} files, {total / 1e6:.2f} MB, the largest {max(sizes.values()) / 1e6:.2f} MB")
    for name, size in sizes.items():
        if size > MOST_FILE_BYTES:
            raise TrainingError(f"{folder / name} has {size} bytes; no file may have more than {MOST_FILE_BYTES}.")
    if total > MOST_BYTES:
        raise TrainingError(f"{folder} has {total} bytes, and may have {MOST_BYTES}; choose narrower networks.")
