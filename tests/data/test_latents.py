"""The autoencoder runs once for what does not change; its distribution is sampled afresh for every step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import draw
from PIL import Image
from torch import Tensor

from dora_diffusion.data.draws import normal
from dora_diffusion.data.latents import Latents
from dora_diffusion.data.views import Photos
from dora_diffusion.models import BaseModel

SIDE, STD, SCALE = 32, 0.25, 0.5


class Encoder:
    """A stand-in for the autoencoder that counts: each 8 x 8 block's mean, with a spread of ``STD``."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        mean = torch.nn.functional.avg_pool2d(pixel_values, 8)
        return mean, torch.full_like(mean, STD)


def make_photos(folder: Path, width: int, count: int = 3, **how: bool) -> Photos:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, width, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return Photos(paths, SIDE, **{"center_crop": False, "random_flip": False, **how}, name="instance")


@pytest.mark.parametrize(
    ("width", "how", "calls"),
    [
        (SIDE, {}, 3),
        (SIDE, {"random_flip": True}, 6),
        (2 * SIDE, {"center_crop": True}, 3),
        (2 * SIDE, {"center_crop": True, "random_flip": True}, 6),
    ],
    ids=["square", "square flipped", "centred", "centred flipped"],
)
def test_what_comes_again_is_encoded_once(tmp_path: Path, width: int, how: dict[str, bool], calls: int) -> None:
    encoder = Encoder()
    latents = Latents(make_photos(tmp_path, width, **how), encoder, SCALE)
    for step in range(30):
        draw(latents, 0, [2 * step, 2 * step + 1])
    assert encoder.calls == calls


def test_a_fresh_crop_is_encoded_every_time(tmp_path: Path) -> None:
    encoder = Encoder()
    latents = Latents(make_photos(tmp_path, 2 * SIDE), encoder, SCALE)
    for step in range(30):
        draw(latents, 0, [2 * step, 2 * step + 1])
    assert encoder.calls == 60
    assert not latents._kept


def test_nothing_is_kept_without_a_cache(tmp_path: Path) -> None:
    encoder = Encoder()
    latents = Latents(make_photos(tmp_path, SIDE), encoder, SCALE, cache=False)
    for sample in range(10):
        draw(latents, 0, [sample])
    assert encoder.calls == 10


@pytest.mark.parametrize("width", [SIDE, 2 * SIDE], ids=["kept", "not kept"])
def test_a_sample_is_the_scaled_distribution_drawn_from(tmp_path: Path, width: int) -> None:
    photos = make_photos(tmp_path, width)
    latents = Latents(photos, Encoder(), SCALE)
    for sample in (0, 4, 4, 11):
        mean = torch.nn.functional.avg_pool2d(photos.pixel_values(photos.view(5, sample))[None], 8)[0]
        expected = SCALE * (mean + STD * normal((3, 4, 4), 5, "instance-latent", sample))
        drawn = draw(latents, 5, [sample])
        assert drawn.shape == (1, 3, 4, 4) and drawn.dtype == torch.float32
        torch.testing.assert_close(drawn[0], expected)


def test_every_step_samples_afresh(tmp_path: Path) -> None:
    """One photo, 2000 samples of its latents: none alike, scattered as the encoder said."""
    photos = make_photos(tmp_path, SIDE, count=1)
    drawn = draw(Latents(photos, Encoder(), SCALE), 0, list(range(2000)))
    assert len({sample.numpy().tobytes() for sample in drawn}) == 2000
    mean = torch.nn.functional.avg_pool2d(photos.pixel_values(photos.view(0, 0))[None], 8)[0]
    torch.testing.assert_close(drawn.mean(0), SCALE * mean, rtol=0, atol=5 * SCALE * STD / 2000**0.5)
    torch.testing.assert_close(drawn.std(0), torch.full((3, 4, 4), SCALE * STD), rtol=0.1, atol=0)


def test_a_fresh_object_draws_the_same(tmp_path: Path) -> None:
    photos = make_photos(tmp_path, 2 * SIDE, random_flip=True)
    walked = Latents(photos, Encoder(), SCALE)
    before = [draw(walked, 1, [sample]) for sample in range(8)]
    fresh = draw(Latents(photos, Encoder(), SCALE), 1, list(range(8)))
    assert torch.equal(torch.cat(before), fresh)
    assert not torch.equal(draw(Latents(photos, Encoder(), SCALE), 2, list(range(8))), fresh)


@pytest.mark.parametrize("how", [{}, {"random_flip": True}], ids=["plain", "flipped"])
def test_the_cache_changes_nothing(tmp_path: Path, how: dict[str, bool]) -> None:
    photos = make_photos(tmp_path, SIDE, **how)
    kept, plain = (Latents(photos, Encoder(), SCALE, cache=cache) for cache in (True, False))
    for sample in range(12):
        assert torch.equal(draw(kept, 0, [sample]), draw(plain, 0, [sample]))


def test_the_real_autoencoder_finds_its_picture_again(toybox: BaseModel, subject_photos: Path) -> None:
    photos = Photos([subject_photos / "studio.jpg"], 64, center_crop=True, random_flip=False, name="instance")
    latents = draw(Latents(photos, toybox.encode_images, toybox.vae.config.scaling_factor), 0, [0])
    assert latents.shape == (1, 8, 8, 8)
    assert 0.3 < float(latents.std()) < 3  # what the scaling factor is for
    picture = toybox.decode_latents(latents)[0]
    original = (photos.pixel_values(photos.view(0, 0)) + 1) / 2
    assert float((picture - original).square().mean()) < 0.01  # 20 dB; the embedded autoencoder has 30 at its own size
