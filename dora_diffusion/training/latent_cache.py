"""Encodings of pictures on the disk, filed under everything that shapes them."""

import json
import secrets
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from dora_diffusion.data.latents import Encode
from dora_diffusion.errors import FormatError
from dora_diffusion.formats.files import read_safetensors, safetensors_bytes, write_bytes
from dora_diffusion.machine import home
from dora_diffusion.models import BaseModel, autoencoder_digest

FOLDER = "latents"
CHECKSUM = "dora_diffusion.checksum"


class LatentsOnDisk:
    """Encodes pictures that were not met before, and reads the others.

    An entry is filed under a digest of the very pixels that the autoencoder takes in (so: of the photo, its resizing,
    crop and mirror), of the autoencoder's weights and precision, and of the kind of device that computes.

    Args:
        encode: pixel values (1, 3, h, w) to mean and standard deviation (1, c, h / 8, w / 8), float32.
        encoder: a text that tells one encoder from another.
        folder: where entries are kept; made when the first is written.
        device: where what is read is put.
    """

    def __init__(self, encode: Encode, encoder: str, folder: Path, device: torch.device):
        self._encode = encode
        self._encoder = encoder
        self._folder = folder
        self._device = device

    def __call__(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' distribution.

        Raises:
            MachineError: a fresh entry cannot be written.
        """
        path = self._path(pixel_values)
        kept = _read(path)
        if kept is None:
            mean, std = self._encode(pixel_values)
            _write(path, mean, std)
            return mean, std
        return kept[0].to(self._device), kept[1].to(self._device)

    def _path(self, pixel_values: Tensor) -> Path:
        digest = blake2b(f"{self._encoder} {tuple(pixel_values.shape)} {pixel_values.dtype} ".encode(), digest_size=16)
        digest.update(pixel_values.contiguous().numpy().tobytes())
        name = digest.hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"


def latents_on_disk(base: BaseModel) -> LatentsOnDisk:
    """The cache of this machine for the autoencoder of ``base``."""
    encoder = json.dumps([autoencoder_digest(base), str(base.vae.dtype), base.vae.device.type])
    return LatentsOnDisk(base.encode_images, encoder, home() / FOLDER, base.vae.device)


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """A whole entry; None where there is none, or it is damaged and has to be made again."""
    try:
        tensors, metadata = read_safetensors(path)
        mean, std = tensors["mean"], tensors["std"]
    except (FormatError, KeyError):
        return None
    return (mean, std) if metadata.get(CHECKSUM) == _checksum(mean, std) else None


def _write(path: Path, mean: Tensor, std: Tensor) -> None:
    content = safetensors_bytes({"mean": mean, "std": std}, {CHECKSUM: _checksum(mean, std)})
    # A name of its own: another process may be writing the same entry.
    fresh = path.with_name(f".{path.stem}-{secrets.token_hex(4)}")
    write_bytes(fresh, content)
    fresh.replace(path)


def _checksum(mean: Tensor, std: Tensor) -> str:
    digest = blake2b(digest_size=8)
    for tensor in (mean, std):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
