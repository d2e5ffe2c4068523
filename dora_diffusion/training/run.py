"""``train(config, on_event, should_stop)``: the whole trainer, for script, command line and studio alike."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dora_diffusion.adapters import inject
from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.data.latents import Latents
from dora_diffusion.data.photos import list_photos
from dora_diffusion.data.views import Photos
from dora_diffusion.errors import ConfigError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.models import BaseModel, choose_attention, load_base
from dora_diffusion.registry import FORMATS, OPTIMIZERS
from dora_diffusion.training.batches import Batches, Prompts
from dora_diffusion.training.card import write_card
from dora_diffusion.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from dora_diffusion.training.events import (
    ClassImages,
    Finished,
    Note,
    OnEvent,
    PreviewReady,
    RunStarted,
    Saved,
    ShouldStop,
    StepDone,
    ignore,
    never,
)
from dora_diffusion.training.hardware import base_dtype, keep_freed_memory, make_accelerator, start_trackers
from dora_diffusion.training.optim import learning_rate_schedule
from dora_diffusion.training.preview import draw_previews
from dora_diffusion.training.prior import class_images
from dora_diffusion.training.run_folder import RunFolder, photos_digest
from dora_diffusion.training.stepper import Losses, Stepper

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. ``stopped``: it can go on; ``loss``: of the last step, NaN when none was done."""

    output_dir: Path
    adapter: Path
    step: int
    stopped: bool
    loss: float


def train(config: TrainConfig, on_event: OnEvent = ignore, should_stop: ShouldStop = never) -> TrainResult:
    """Teach the base of ``config`` its subject.

    Started again in the same folder it resumes, or says that it is finished. Nothing is written before photos, base and adapter
    are known to be sound.

    Args:
        on_event: called with every ``events.Event``, on the main process only.
        should_stop: asked after every step; the run then saves a checkpoint and the adapter as it is, and returns.

    Raises:
        DoraError: a setting, photo, model, folder or machine is not fit; the message says what to do.
    """
    folder = RunFolder(config)
    paths = _photo_paths(config)
    prompt = config.data.prompt()
    accelerator = make_accelerator(config.run)
    tell = on_event if accelerator.is_main_process else ignore
    if folder.is_finished():
        tell(Note(f"The run in {folder.path} is finished ({folder.steps_done()} steps). Raise --max_train_steps to go on, or --overwrite it."))
        tell(Finished(folder.steps_done(), folder.path / WEIGHTS_NAME, False))
        return TrainResult(folder.path, folder.path / WEIGHTS_NAME, folder.steps_done(), False, float("nan"))
    checkpoint = None if config.run.overwrite else folder.resume_point()
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    base = _load(config, accelerator)
    resolution = config.data.resolution or base.native_resolution
    photos = Photos(paths, resolution, center_crop=config.data.center_crop, random_flip=config.data.random_flip, name="instance")
    prior_paths = _class_images(base, config, resolution, accelerator, tell)
    adapter = inject(base, config.adapter, config.run.seed)
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()

    instance = _latents(base, photos, config)
    prior = _latents(base, Photos(prior_paths, resolution, center_crop=True, random_flip=False, name="class"), config) if prior_paths else None
    prompts = Prompts(base, prompt, config.class_prompt() if prior else None, config.adapter.train_text_encoder)
    noise_schedule = _noise_schedule(base)
    batches = Batches(
        instance,
        prior,
        prompts,
        seed=config.run.seed,
        batch_size=config.run.train_batch_size,
        accumulation=config.run.gradient_accumulation_steps,
        num_train_timesteps=noise_schedule.config.num_train_timesteps,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        device=base.device,
    )
    optimizer = OPTIMIZERS.load(config.optim.optimizer)(adapter, config.optim)
    schedule = learning_rate_schedule(optimizer, config.optim, config.run.max_train_steps)
    guard = {"photos": photos_digest(paths), "global batch": batches.global_batch, "precision": str(base.dtype)}
    progress = Progress(adapter, optimizer, schedule, accelerator.scaler, guard)
    if checkpoint is not None:
        load_checkpoint(checkpoint, progress)
        tell(Note(f"Resuming from {checkpoint.name}."))
    if accelerator.is_main_process:
        folder.drop_metrics_after(progress.step)
    start_trackers(accelerator, {name: value_at(config, name) for name, _ in walk(TrainConfig)})
    stepper = Stepper(
        base.unet,
        noise_schedule,
        batches,
        progress,
        accelerator,
        accumulation=config.run.gradient_accumulation_steps,
        prior_loss_weight=config.prior.prior_loss_weight,
        max_grad_norm=config.optim.max_grad_norm,
    )
    tell(RunStarted(folder.path, progress.step, config.run.max_train_steps, _facts(base, progress, accelerator, config, len(paths), prompt)))
    run = _Run(config, folder, base, progress, accelerator, stepper, tell, prompt)
    return run.go(should_stop)


class _Run:
    """The loop, and what is written while it turns."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        base: BaseModel,
        progress: Progress,
        accelerator: Accelerator,
        stepper: Stepper,
        tell: OnEvent,
        prompt: str,
    ):
        self.config, self.folder, self.base = config, folder, base
        self.progress, self.accelerator, self.stepper = progress, accelerator, stepper
        self.tell, self.prompt = tell, prompt

    def go(self, should_stop: ShouldStop) -> TrainResult:
        run = self.config.run
        loss, stopped, usual_ms = float("nan"), False, 0.0
        while self.progress.step < run.max_train_steps and not stopped:
            began = time.perf_counter()
            rate = self.progress.schedule.get_last_lr()[0]
            losses = self.stepper.step()
            step_ms = 1000 * (time.perf_counter() - began)
            usual_ms = step_ms if not usual_ms else 0.9 * usual_ms + 0.1 * step_ms
            loss, step = losses.total, self.progress.step
            self._report(losses, rate, step_ms, usual_ms)
            if run.validation_prompt and run.validation_steps and step % run.validation_steps == 0:
                self._preview()
            stopped = self._anybody(should_stop()) and step < run.max_train_steps
            if run.checkpointing_steps and step % run.checkpointing_steps == 0 and not stopped and step < run.max_train_steps:
                self._checkpoint()
        self._finish(stopped)
        return TrainResult(self.folder.path, self.folder.path / WEIGHTS_NAME, self.progress.step, stopped, loss)

    def _anybody(self, wish: bool) -> bool:
        """Whether any process was asked to stop: all must leave at the same step."""
        if self.accelerator.num_processes == 1:
            return wish
        import torch

        votes = torch.tensor(float(wish), device=self.accelerator.device)
        return bool(self.accelerator.reduce(votes, reduction="sum").item() > 0)

    def _report(self, losses: Losses, rate: float, step_ms: float, usual_ms: float) -> None:
        step, total = self.progress.step, self.config.run.max_train_steps
        prior = losses.prior if self.config.prior.with_prior_preservation else None
        event = StepDone(step, total, losses.total, losses.instance, prior, rate, step_ms, (total - step) * usual_ms / 1000)
        if self.accelerator.trackers:
            values = {"loss": event.loss, "instance_loss": event.instance_loss, "lr": event.lr, "step_ms": event.step_ms}
            self.accelerator.log(values if prior is None else {**values, "prior_loss": prior}, step=step)
        self.tell(event)

    def _preview(self) -> None:
        if self.accelerator.is_main_process:
            self.tell(PreviewReady(self.progress.step, draw_previews(self.base, self.config, self.progress.step)))
        self.accelerator.wait_for_everyone()

    def _checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            path = save_checkpoint(self.folder.path, self.progress, self.config.run.checkpoints_total_limit)
            self.tell(Saved(self.progress.step, path))
        self.accelerator.wait_for_everyone()

    def _finish(self, stopped: bool) -> None:
        self._checkpoint()
        if self.accelerator.is_main_process:
            data = self.config.data
            metadata = {
                "step": str(self.progress.step),
                "instance_prompt": self.prompt,
                "trigger": data.trigger,
                "class_noun": data.class_noun or "",
                "resolution": str(data.resolution or self.base.native_resolution),
                "prediction_type": self.base.prediction_type,
            }
            state = self.progress.adapter.state(self.base.name, metadata)
            write_card(self.folder.path, self.config, self.base, self.progress.step)
            # Last, because this file is what makes a run a finished one.
            FORMATS.load("diffusers").write(state, self.folder.path / WEIGHTS_NAME)
            self.tell(Finished(self.progress.step, self.folder.path / WEIGHTS_NAME, stopped))
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def _photo_paths(config: TrainConfig) -> list[Path]:
    if config.data.instance_data_dir is None:
        raise ConfigError("Which photos? Give --instance_data_dir with a folder of three to twenty photos of the subject.")
    return list_photos(config.data.instance_data_dir)


def _load(config: TrainConfig, accelerator: Accelerator) -> BaseModel:
    model = config.model
    base = load_base(
        model.pretrained_model_name_or_path,
        revision=model.revision,
        variant=model.variant,
        dtype=base_dtype(accelerator),
        prediction_type=model.prediction_type,
        allow_pickle=model.allow_pickle,
    )
    base.freeze()
    base.to(accelerator.device)
    base.attention = choose_attention(base.unet, model.attention)
    if config.run.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    return base


def _class_images(base: BaseModel, config: TrainConfig, resolution: int, accelerator: Accelerator, tell: OnEvent) -> list[Path]:
    if not config.prior.with_prior_preservation:
        return []

    def report(done: int, total: int) -> None:
        tell(ClassImages(done, total))

    paths = class_images(base, config, resolution, report, accelerator.process_index, accelerator.num_processes)
    accelerator.wait_for_everyone()
    return paths


def _latents(base: BaseModel, photos: Photos, config: TrainConfig) -> Latents:
    return Latents(photos, base.encode_images, base.vae.config.scaling_factor, config.data.cache_latents)


def _noise_schedule(base: BaseModel) -> Any:
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler.from_config(base.pipe.scheduler.config)
    schedule.alphas_cumprod = schedule.alphas_cumprod.to(base.device)
    return schedule


def _facts(
    base: BaseModel, progress: Progress, accelerator: Accelerator, config: TrainConfig, photos: int, prompt: str
) -> dict[str, str]:
    """What a user wants to see once before the first step."""
    adapter = progress.adapter
    return {
        "base": f"{base.name} ({base.family.name}, {str(base.dtype).removeprefix('torch.')}, {base.prediction_type})",
        "device": f"{accelerator.device} x {accelerator.num_processes}",
        "attention": base.attention,
        "adapter": f"{adapter.variant.name}, {len(adapter.layers)} layers, {adapter.num_parameters():,} parameters in float32",
        "photos": f"{photos}, prompt {prompt!r}",
        "batch": f"{progress.guard['global batch']} photos a step"
        + (" and as many class images" if config.prior.with_prior_preservation else ""),
    }
