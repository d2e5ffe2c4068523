"""A safetensors file larger than memory: one tensor at a time is made, written and forgotten."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import _TYPES as DTYPES
from torch import Tensor

from dora_diffusion.formats.files import written_whole

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_DIGITS = 20  # of the largest offset; a header is padded with spaces, so that it can be given room before it is known


def stream_safetensors(
    path: Path, names: Iterable[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write ``names`` of ``tensors`` beside the target, flush, and rename over it. The same content is the same bytes.

    Raises:
        MachineError: the folder cannot be written to, or the disk is full; the old file is untouched.
    """
    order = sorted(names)
    facts = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items()))}
    room = len(_header(facts)) + sum(len(json.dumps(name).encode()) + 5 * _DIGITS + 60 for name in order)
    room += -room % 8
    with written_whole(path) as file:
        file.write(struct.pack("<Q", room) + b" " * room)
        entries, at = {}, 0
        for name in order:
            tensor = tensors[name].detach().cpu().contiguous()
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            end = at + tensor.nbytes
            entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
            at = end
        file.seek(8)
        file.write(_header({**facts, **entries}))


def _header(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
