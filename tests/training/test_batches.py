"""Batches are functions of (seed, step): the same samples, however many processes share them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from training_engine import make_engine

from dora_diffusion.data.captions import Captions
from dora_diffusion.data.latents import Latents
from dora_diffusion.data.photos import list_photos
from dora_diffusion.data.views import Photos, View
from dora_diffusion.training.batches import Batches
from dora_diffusion.training.loss import Batch

BUCKETS = ((64, 64), (48, 80), (80, 48))


class NumberedPrompts:
    """Conditioning that says which prompt a sample got: how many letters it has."""

    def conditioning(self, prompts: list[str], framing: Tensor) -> dict[str, Tensor]:
        return {"encoder_hidden_states": torch.tensor([len(prompt) for prompt in prompts]).float()[:, None, None]}


def encode(pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """A stand-in for the autoencoder: each 8 x 8 block's mean, with a little spread."""
    mean = torch.nn.functional.avg_pool2d(pixel_values, 8)
    return mean, torch.full_like(mean, 0.1)


def make(folder: Path, *, prior: bool = False, seed: int = 0, buckets: bool = False, **shape: int) -> Batches:
    chunk = shape.get("batch_size", 1) * shape.get("processes", 1)

    def latents(name: str, like: Photos | None = None) -> Latents:
        paths = list_photos(folder)
        captions = Captions(("sks" if name == "instance" else "a dog",) * len(paths))
        how = {"captions": captions, "like": like, "chunk": chunk, "buckets": BUCKETS if buckets else ()}
        return Latents(Photos(paths, 64, center_crop=False, random_flip=True, name=name, **how), encode, 1.0)

    instance = latents("instance")
    layout = {"batch_size": 1, "accumulation": 1, "process": 0, "processes": 1, **shape}
    return Batches(
        instance,
        latents("class", instance.photos) if prior else None,
        NumberedPrompts(),  # type: ignore[arg-type]
        seed=seed,
        num_train_timesteps=1000,
        device=torch.device("cpu"),
        **layout,
    )


def samples(batch: Batch, kind: bool) -> list[tuple[bytes, bytes, int]]:
    """(latents, noise, timestep) of the batch's instance samples (False) or class samples (True)."""
    parts = zip(batch.latents, batch.noise, batch.timesteps.tolist(), batch.is_prior.tolist(), strict=True)
    return [(x.numpy().tobytes(), n.numpy().tobytes(), t) for x, n, t, is_prior in parts if is_prior is kind]


@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
def test_two_processes_share_the_samples_of_one(subject_photos: Path, prior: bool) -> None:
    kinds = [False, True] if prior else [False]
    whole = make(subject_photos, batch_size=2, accumulation=2, prior=prior)
    shares = [make(subject_photos, accumulation=2, process=k, processes=2, prior=prior) for k in range(2)]
    assert {share.global_batch for share in shares} == {whole.global_batch} == {4}
    for step in (0, 1, 7):
        for micro_step in range(2):
            ours = [share.batch(step, micro_step) for share in shares]
            theirs = whole.batch(step, micro_step)
            for kind in kinds:
                assert samples(ours[0], kind) + samples(ours[1], kind) == samples(theirs, kind)


@pytest.fixture
def mixed_photos(tmp_path: Path, subject_photos: Path) -> Path:
    """Seven photos of three shapes: three square, three wide, one high."""
    for number, size in enumerate([(64, 64), (80, 48), (64, 64), (48, 80), (90, 48), (100, 100), (80, 60)]):
        Image.open(subject_photos / "brick.jpg").rotate(10 * number).resize(size).save(tmp_path / f"{number}.png")
    return tmp_path


def test_two_processes_share_the_buckets_of_one(mixed_photos: Path) -> None:
    """At every micro-step both have the shape, and together the samples, of the one with the larger batch."""
    whole = make(mixed_photos, batch_size=4, accumulation=2, prior=True, buckets=True)
    shares = [
        make(mixed_photos, batch_size=2, accumulation=2, process=k, processes=2, prior=True, buckets=True)
        for k in range(2)
    ]
    shapes = set()
    for step in range(6):
        for micro_step in range(2):
            ours, theirs = [share.batch(step, micro_step) for share in shares], whole.batch(step, micro_step)
            assert ours[0].latents.shape == ours[1].latents.shape
            shapes.add(tuple(theirs.latents.shape))
            for kind in (False, True):
                assert samples(ours[0], kind) + samples(ours[1], kind) == samples(theirs, kind)
    assert shapes == {(8, 3, 8, 8), (8, 3, 6, 10), (8, 3, 10, 6)}


def test_a_single_bucket_draws_what_no_buckets_draw(subject_photos: Path) -> None:
    """The photos are square, so that only the square of the three holds any."""
    plain = make(subject_photos, batch_size=2, prior=True)
    bucketed = make(subject_photos, batch_size=2, prior=True, buckets=True)
    for step in range(9):
        for kind in (False, True):
            assert samples(plain.batch(step, 0), kind) == samples(bucketed.batch(step, 0), kind)


def test_two_accumulated_batches_hold_the_samples_of_one_twice_as_large(subject_photos: Path) -> None:
    whole, parts = make(subject_photos, batch_size=4), make(subject_photos, batch_size=2, accumulation=2)
    for step in (0, 5):
        assert samples(parts.batch(step, 0), False) + samples(parts.batch(step, 1), False) == samples(
            whole.batch(step, 0), False
        )


def test_a_batch_needs_no_batch_before_it(subject_photos: Path) -> None:
    walked = make(subject_photos, batch_size=2)
    for step in range(5):
        walked.batch(step, 0)
    assert samples(walked.batch(5, 0), False) == samples(make(subject_photos, batch_size=2).batch(5, 0), False)


def test_the_process_own_random_state_plays_no_part(subject_photos: Path) -> None:
    torch.manual_seed(1)
    before = samples(make(subject_photos).batch(3, 0), False)
    torch.manual_seed(2)
    assert samples(make(subject_photos).batch(3, 0), False) == before


def test_every_step_and_every_seed_draws_its_own(subject_photos: Path) -> None:
    batches = make(subject_photos, prior=True)
    drawn = [sample for step in range(30) for sample in samples(batches.batch(step, 0), False)]
    for column in range(2):
        assert len({sample[column] for sample in drawn}) == 30
    assert len({sample[2] for sample in drawn}) > 20  # 30 draws of 1000 timesteps seldom meet
    other = make(subject_photos, seed=1)
    assert not {sample[1] for sample in drawn} & {n for s in range(30) for _, n, _ in samples(other.batch(s, 0), False)}


def test_a_class_image_shares_no_noise_with_its_photo(subject_photos: Path) -> None:
    batch = make(subject_photos, prior=True, batch_size=2).batch(0, 0)
    assert batch.is_prior.tolist() == [False, False, True, True]
    assert batch.conditioning["encoder_hidden_states"].flatten().tolist() == [3, 3, 5, 5]
    assert len({noise.numpy().tobytes() for noise in batch.noise}) == 4
    assert not torch.equal(batch.timesteps[:2], batch.timesteps[2:])


def test_all_timesteps_are_drawn_evenly(subject_photos: Path) -> None:
    batches = make(subject_photos, batch_size=64)
    timesteps = torch.cat([batches.batch(step, 0).timesteps for step in range(20)])
    assert timesteps.dtype == torch.int64
    assert timesteps.min() >= 0 and timesteps.max() < 1000
    counts = torch.histc(timesteps.float(), 4, 0, 1000)
    assert counts.min() > 0.8 * len(timesteps) / 4  # 4.5 standard deviations below even


def test_the_real_base_gives_shapes_that_its_unet_takes(subject_photos: Path) -> None:
    batch = make_engine(subject_photos, batch_size=2, prior=True).batches.batch(0, 0)
    assert batch.latents.shape == batch.noise.shape == (4, 8, 8, 8)
    assert batch.latents.dtype == torch.float32
    assert batch.conditioning["encoder_hidden_states"].shape[0] == 4


@pytest.mark.parametrize("prior", [False, True])
def test_the_view_of_a_sample_is_drawn_once(subject_photos: Path, monkeypatch: pytest.MonkeyPatch, prior: bool) -> None:
    """And all that is said of a sample is of that one view."""
    batches = make(subject_photos, prior=prior, buckets=True, batch_size=4)
    drawn: list[tuple[str, int]] = []
    draw_view = Photos.view

    def counting(photos: Photos, seed: int, sample: int) -> View:
        drawn.append((photos.name, sample))
        return draw_view(photos, seed, sample)

    monkeypatch.setattr(Photos, "view", counting)
    batch = batches.batch(3, 0)
    kinds = ["instance", "class"] if prior else ["instance"]
    assert drawn == [(kind, sample) for kind in kinds for sample in range(12, 16)]
    assert len(batch.latents) == len(drawn)
