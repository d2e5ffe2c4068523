"""Files that are whole or not there, the same bytes for the same content, and read without trust."""

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dora_diffusion.errors import FormatError, MachineError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, beside the target; after the block it is flushed to the disk and renamed over it.

    Raises:
        MachineError: the folder cannot be written to, or the disk is full; the old file is untouched.
    """
    fresh = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise MachineError(
            f"{path} cannot be written: {error.strerror or error}. "
            "Free some space, or choose a folder you may write to."
        ) from None
    finally:
        with contextlib.suppress(OSError):  # its folder may be a file
            fresh.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all. Raises: MachineError: as ``written_whole``."""
    with written_whole(path) as file:
        file.write(content)


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file in memory, its metadata sorted: the library writes that in an order of chance."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    raw = save(plain, {"format": "pt", **metadata})
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically. Raises: MachineError."""
    write_bytes(path, safetensors_bytes(tensors, metadata))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, on the CPU, and its metadata.

    Raises:
        FormatError: no such file, a pickle, or not a whole safetensors file.
    """
    if not path.is_file():
        raise FormatError(f"There is no file {path}.")
    if path.suffix.lower() in PICKLES:
        raise FormatError(
            f"{path} is a pickle ({path.suffix}), which can run any code; only .safetensors files are read. "
            "Convert it first."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is not a dict
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0].removeprefix("Error while deserializing header: ")
        raise FormatError(
            f"{path} is no whole safetensors file ({why}); it is of another kind, or was cut off as it was "
            "written or downloaded."
        ) from None


def _comparable(tensor: Tensor) -> Tensor:
    """8-bit floats, which torch cannot look into, as float32."""
    return tensor.float() if tensor.element_size() == 1 else tensor


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises: FormatError: a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(_comparable(tensor)).all()):
            raise FormatError(
                f"{path} holds values that are not finite, first in {name}; the training that made it went wrong."
            )
