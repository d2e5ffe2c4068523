"""A minute of training teaches the subject: seen in the loss on noise that the training never drew."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from training_runs import PHOTOS, run_it, small_config

from dora_diffusion.adapters import inject_state
from dora_diffusion.data.draws import normal
from dora_diffusion.data.latents import Latents
from dora_diffusion.data.photos import list_photos
from dora_diffusion.data.views import Photos
from dora_diffusion.formats import load_adapter
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training.loss import Batch, denoising_loss

SIDE, DRAWS = 64, 8


@torch.no_grad()
def fixed_noise_loss(base: BaseModel, folder: Path, prompt: str) -> float:
    """The denoising loss on the photos in ``folder``, over noise and timesteps that are the same at every call."""
    paths = list_photos(folder)
    photos = Photos(paths, SIDE, center_crop=True, random_flip=False, name="evaluation")
    latents = Latents(photos, base.encode_images, base.vae.config.scaling_factor)
    schedule = DDPMScheduler.from_config(base.pipe.scheduler.config)
    count, losses = len(paths), []
    for draw in range(DRAWS):
        x = latents.sample(99, list(range(count)))
        noise = normal(tuple(x.shape), 99, "evaluation-noise", draw)
        timesteps = torch.full((count,), 50 + 900 * draw // DRAWS)
        conditioning = {name: value.expand(count, -1, -1) for name, value in base.encode_prompts([prompt]).items()}
        batch = Batch(x, noise, timesteps, torch.zeros(count, dtype=torch.bool), conditioning)
        losses.append(denoising_loss(base.unet, schedule, batch, 0.0)[0])
    return float(torch.stack(losses).mean())


def adapted(folder: Path, strength: float = 1.0) -> BaseModel:
    base = load_base("toybox")
    with torch.no_grad():
        inject_state(base, load_adapter(folder), base.name).strength = strength
    return base


@pytest.fixture(scope="module", params=["dora", "lora"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty steps on the teapot."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    config = small_config(folder, 60, data={"resolution": SIDE}, adapter={"kind": request.param, "rank": 8})
    run_it(config)
    return folder


def test_sixty_steps_lower_the_loss_on_the_subject(taught: Path) -> None:
    prompt = "a photo of sks teapot"
    before = fixed_noise_loss(load_base("toybox"), PHOTOS, prompt)
    after = fixed_noise_loss(adapted(taught), PHOTOS, prompt)
    other=PHOTOS.parent/"mug"
    print("XX", before, after, fixed_noise_loss(adapted(taught,0.5), PHOTOS, prompt), fixed_noise_loss(adapted(taught,0.), PHOTOS, prompt), "other", fixed_noise_loss(load_base("toybox"), other, "a photo of a mug"), fixed_noise_loss(adapted(taught), other, "a photo of a mug"), fixed_noise_loss(load_base("toybox"), PHOTOS, "a photo of a mug"),fixed_noise_loss(adapted(taught), PHOTOS, "a photo of a mug"))
