"""Latents on the disk: read back bit for bit, filed under all that shapes them, made again where damaged."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from drawn import draw
from torch import Tensor

from dora_diffusion.data.latents import Latents
from dora_diffusion.data.photos import list_photos
from dora_diffusion.data.views import Photos
from dora_diffusion.errors import MachineError
from dora_diffusion.models import BaseModel, autoencoder_digest
from dora_diffusion.training.latent_cache import LatentsOnDisk, latents_on_disk

CPU = torch.device("cpu")


class Encoder:
    """A stand-in for the autoencoder that counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        mean = torch.nn.functional.avg_pool2d(pixel_values, 8) / 3
        return mean, mean.abs() + 0.1


def pixels(seed: int = 0, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_an_entry_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    encoder = Encoder()
    fresh = LatentsOnDisk(encoder, "vae", tmp_path, CPU)(pixels())
    again = LatentsOnDisk(encoder, "vae", tmp_path, CPU)(pixels())
    plain = Encoder()(pixels())
    assert encoder.calls == 1 and len(entries(tmp_path)) == 1
    for ours, kept, expected in zip(fresh, again, plain, strict=True):
        assert torch.equal(ours, expected) and torch.equal(kept, expected) and kept.dtype == torch.float32


def test_what_differs_is_filed_apart(tmp_path: Path) -> None:
    encoder = Encoder()
    other_photo = pixels()
    other_photo[0, 0, 0, 0] += 1 / 127.5  # one pixel of one colour by one step
    mirrored, cropped = pixels().flip(3), pixels(height=24, width=16)[:, :, 8:]
    for values in (pixels(), other_photo, mirrored, cropped, pixels(height=8, width=32)):
        LatentsOnDisk(encoder, "vae", tmp_path, CPU)(values)
    LatentsOnDisk(encoder, "another vae", tmp_path, CPU)(pixels())
    assert encoder.calls == len(entries(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["cut off", "empty", "a bit", "other content"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    encoder = Encoder()
    cache = LatentsOnDisk(encoder, "vae", tmp_path, CPU)
    expected = cache(pixels())
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes({"cut off": whole[:-9], "empty": b"", "a bit": flipped, "other content": b"{}" * 50}[damage])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(cache(pixels()), expected, strict=True))
    assert encoder.calls == 2 and path.read_bytes() == whole
    cache(pixels())
    assert encoder.calls == 2


def test_several_may_make_one_entry_at_once(tmp_path: Path) -> None:
    cache = LatentsOnDisk(Encoder(), "vae", tmp_path, CPU)
    expected = Encoder()(pixels())
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: cache(pixels()), range(40)))
    assert all(torch.equal(ours, theirs) for pair in made for ours, theirs in zip(pair, expected, strict=True))
    assert len(entries(tmp_path)) == 1


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(MachineError, match="cannot be written"):
        LatentsOnDisk(Encoder(), "vae", tmp_path / "file", CPU)(pixels())


def test_an_autoencoder_is_known_by_its_weights(toybox: BaseModel, own_home: Path) -> None:
    values = pixels(height=64, width=64)
    latents_on_disk(toybox)(values)
    before = autoencoder_digest(toybox)
    with torch.no_grad():
        next(toybox.unet.parameters()).add_(1)
    assert autoencoder_digest(toybox) == before
    latents_on_disk(toybox)(values)
    assert len(entries(own_home / "latents")) == 1
    with torch.no_grad():
        next(toybox.vae.parameters()).add_(1e-3)
    latents_on_disk(toybox)(values)
    assert len(entries(own_home / "latents")) == 2


@pytest.mark.parametrize("center_crop", [True, False])
def test_only_views_that_come_again_go_to_the_disk(subject_photos: Path, tmp_path: Path, center_crop: bool) -> None:
    """The photos are square: at 64 pixels nothing is left to crop, unless a bucket is wider."""
    paths = list_photos(subject_photos)
    photos = Photos(paths, 64, center_crop=center_crop, random_flip=True, name="instance", buckets=[(48, 64)])
    encoder = Encoder()
    disk = LatentsOnDisk(encoder, "vae", tmp_path, CPU)
    with_disk = [draw(Latents(photos, encoder, 0.5, True, disk), 0, list(range(30))) for _ in range(2)]
    assert encoder.calls == (10 if center_crop else 60) and len(entries(tmp_path)) == (10 if center_crop else 0)
    assert torch.equal(with_disk[0], with_disk[1])
    assert torch.equal(with_disk[0], draw(Latents(photos, encoder, 0.5), 0, list(range(30))))
