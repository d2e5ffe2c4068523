"""The trainer's step without the trainer: base, adapter, batches and stepper, taken apart for a test to look into."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from dora_diffusion.adapters import Adapter, inject
from dora_diffusion.config import AdapterConfig, LossConfig, OptimConfig, RunConfig
from dora_diffusion.data.captions import Captions
from dora_diffusion.data.latents import Latents
from dora_diffusion.data.photos import list_photos
from dora_diffusion.data.views import Photos
from dora_diffusion.models import BaseModel, load_base
from dora_diffusion.training.batches import Batches, Prompts
from dora_diffusion.training.checkpoint import Progress
from dora_diffusion.training.hardware import make_accelerator
from dora_diffusion.training.optim import learning_rate_schedule
from dora_diffusion.training.optimizers.adamw import ADAMW
from dora_diffusion.training.prior_prediction import PriorPrediction
from dora_diffusion.training.stepper import Stepper

SIDE = 64


@dataclass
class Engine:
    """One process's share of a run."""

    base: BaseModel
    adapter: Adapter
    batches: Batches
    progress: Progress
    stepper: Stepper
    prior_prediction: PriorPrediction | None

    def gradients(self) -> dict[str, Tensor]:
        """A copy of the gradients that the last step left, by buffer."""
        return {f"{b.component}.{b.role}": _gradient(b.parameter) for b in self.adapter.buffers}


def make_engine(
    folder: Path,
    *,
    batch_size: int = 1,
    accumulation: int = 1,
    process: int = 0,
    processes: int = 1,
    prior: bool = False,
    prediction: bool = False,
    loss: LossConfig | None = None,
    adapter: AdapterConfig | None = None,
    optim: OptimConfig | None = None,
) -> Engine:
    """An engine over the photos in ``folder`` (and, with ``prior``, the same photos as class images).

    With ``prediction`` the base's own prediction is the prior term's target instead.
    """
    wanted = adapter or AdapterConfig(rank=4)
    how = optim or OptimConfig(max_grad_norm=0)
    counted = loss or LossConfig()
    base = load_base("toybox")
    base.freeze()
    injected = inject(base, wanted)
    prompts = Prompts(base, ["sks teapot", "a teapot"] if prior else ["sks teapot"], wanted.train_text_encoder)
    noise_schedule = DDPMScheduler.from_config(base.pipe.scheduler.config)
    batches = Batches(
        _latents(base, folder, "instance"),
        _latents(base, folder, "class") if prior else None,
        prompts,
        seed=0,
        batch_size=batch_size,
        accumulation=accumulation,
        num_train_timesteps=1000,
        loss=counted,
        process=process,
        processes=processes,
        device=torch.device("cpu"),
    )
    kept = None
    if prediction:
        kept = PriorPrediction(base, injected, noise_schedule, "a teapot", wanted.train_text_encoder)
    optimizer = ADAMW.make(injected, how)
    progress = Progress(injected, optimizer, learning_rate_schedule(optimizer, how, 100), None, {})
    stepper = Stepper(
        base.predict,
        noise_schedule,
        batches,
        progress,
        make_accelerator(RunConfig(cpu=True)),
        accumulation=accumulation,
        prior_loss_weight=0.5,
        max_grad_norm=how.max_grad_norm,
        loss=counted,
        prior_prediction=kept,
    )
    return Engine(base, injected, batches, progress, stepper, kept)


def _latents(base: BaseModel, folder: Path, name: str) -> Latents:
    paths = list_photos(folder)
    captions = Captions(("sks teapot" if name == "instance" else "a teapot",) * len(paths))
    photos = Photos(paths, SIDE, center_crop=False, random_flip=True, name=name, captions=captions)
    return Latents(photos, base.encode_images, base.vae.config.scaling_factor)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()
