"""Everything a run is made of, put together before its first step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dora_diffusion.adapters import Adapter, inject
from dora_diffusion.config import TrainConfig
from dora_diffusion.data.captions import Captions
from dora_diffusion.data.latents import Latents
from dora_diffusion.data.photos import list_photos
from dora_diffusion.data.views import Photos
from dora_diffusion.errors import ConfigError
from dora_diffusion.inference.out_of_memory import memory_told
from dora_diffusion.models import BaseModel, base_digest, choose_attention, load_base
from dora_diffusion.models.vae import replace_vae
from dora_diffusion.models.words import start_rows
from dora_diffusion.registry import OPTIMIZERS
from dora_diffusion.training import remedies
from dora_diffusion.training.batches import Batches, Prompts, fixed_captions
from dora_diffusion.training.checkpoint import Progress
from dora_diffusion.training.digests import NOTHING, digests_of_files
from dora_diffusion.training.ema import Ema
from dora_diffusion.training.events import ClassImages, Note, OnEvent, ShouldStop
from dora_diffusion.training.hardware import base_dtype
from dora_diffusion.training.latent_cache import latents_on_disk
from dora_diffusion.training.memory import Parts, recompute_activations
from dora_diffusion.training.optim import learning_rate_schedule
from dora_diffusion.training.prior import class_images, given_class_images
from dora_diffusion.training.prior_prediction import PriorPrediction
from dora_diffusion.training.published import published_as
from dora_diffusion.training.remarks import remarks
from dora_diffusion.training.subject_photos import (
    find_subject,
    load_subject,
    missing_trigger,
    photo_remarks,
    subject_digests,
    subject_facts,
)


@dataclass(frozen=True)
class Assembly:
    """A base with its adapter, the batches, and what moves. ``facts``: what a user wants to see once."""

    base: BaseModel
    noise_schedule: Any
    batches: Batches
    progress: Progress
    prior_prediction: PriorPrediction | None
    facts: dict[str, str]
    parts: Parts

    @property
    def trained(self) -> set[str]:
        """The components that carry the adapter."""
        return {buffer.component for buffer in self.progress.adapter.buffers}


def photo_paths(config: TrainConfig) -> list[Path]:
    """The subject's photos.

    Raises:
        ConfigError: no folder was given.
        DataError: it holds none.
    """
    if config.data.instance_data_dir is None:
        raise ConfigError(
            "Which photos? Give --instance_data_dir with a folder of three to twenty photos of the subject."
        )
    return list_photos(config.data.instance_data_dir)


def assemble(
    config: TrainConfig, paths: list[Path], accelerator: Accelerator, tell: OnEvent, should_stop: ShouldStop
) -> Assembly:
    """Load the base, read the photos, make the class images, inject the adapter. Writes class images and nothing else.

    Raises:
        DoraError: a part is not fit.
        StoppedEarlyError: ``should_stop`` said so while class images were drawn.
    """
    data = config.data
    files = find_subject(data, paths)
    if message := missing_trigger(data, files):
        if config.adapter.new_tokens:
            raise ConfigError(f"{message} New tokens for it would never be learnt.")
        tell(Note(message))
    with memory_told("loading the base", remedies.when_loading(config)):
        base = _load(config, accelerator)
    resolution = data.resolution or base.native_resolution
    # Before class images, which take minutes.
    for remark in (*remarks(config, base), *photo_remarks(data, resolution)):
        tell(Note(remark))
    chunk = config.run.train_batch_size * accelerator.num_processes
    photos = load_subject(data, files, resolution, chunk)
    prior = _prior(base, config, resolution, photos, accelerator, tell, should_stop)
    # After the class images and the digest: both are the untouched base's.
    digest = base_digest(base)
    _learn_word(base, config)
    adapter = inject(base, config.adapter, config.run.seed)
    trained = {buffer.component for buffer in adapter.buffers}
    if config.run.gradient_checkpointing:
        recompute_activations(base, trained)
    noise_schedule = _noise_schedule(base)
    instance = _latents(base, photos, config)
    sources = [instance] if prior is None else [instance, prior]
    batches = Batches(
        instance,
        prior,
        Prompts(base, fixed_captions(sources), config.adapter.trains_text()),
        seed=config.run.seed,
        batch_size=config.run.train_batch_size,
        accumulation=config.run.gradient_accumulation_steps,
        num_train_timesteps=noise_schedule.config.num_train_timesteps,
        loss=config.loss,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        device=base.device,
    )
    optimizer = OPTIMIZERS.load(config.optim.optimizer).make(adapter, config.optim)
    schedule = learning_rate_schedule(optimizer, config.optim, config.run.max_train_steps)
    class_files = digests_of_files(given_class_images(config)) if prior else NOTHING
    learnt_from = {**subject_digests(files), "class images of your own": class_files}
    guard = {
        "base": digest,
        **{what: found.together for what, found in learnt_from.items()},
        "global batch": batches.global_batch,
        "precision": str(base.dtype),
    }
    ema = Ema(adapter, config.optim.ema_decay) if config.optim.ema_decay else None
    each = {what: dict(found.each) for what, found in learnt_from.items()}
    progress = Progress(adapter, optimizer, schedule, accelerator.scaler, guard, ema=ema, learnt_from=each)
    prior_prediction = _prior_prediction(base, adapter, noise_schedule, config)
    facts = _facts(base, progress, accelerator, config, subject_facts(data, files, photos))
    # Last: what was encoded until here needed every part on the device.
    needed = trained | (base.adaptable().keys() if data.caption_shuffle else set())
    with memory_told("encoding the pictures", remedies.when_encoding(config)):
        parts = _parts(base, needed, sources, tell)
    return Assembly(base, noise_schedule, batches, progress, prior_prediction, facts, parts)


def _load(config: TrainConfig, accelerator: Accelerator) -> BaseModel:
    model = config.model
    base = load_base(
        model.pretrained_model_name_or_path,
        revision=model.revision,
        variant=model.variant,
        dtype=base_dtype(accelerator),
        prediction_type=model.prediction_type,
        rescale_betas_zero_snr=model.rescale_betas_zero_snr,
        allow_pickle=model.allow_pickle,
    )
    if model.pretrained_vae_model_name_or_path:
        replace_vae(base, model.pretrained_vae_model_name_or_path, model.allow_pickle)
    base.freeze()
    base.to(accelerator.device)
    base.attention = choose_attention(base.unet, model.attention)
    return base


def _prior(
    base: BaseModel,
    config: TrainConfig,
    resolution: int,
    instance: Photos,
    accelerator: Accelerator,
    tell: OnEvent,
    should_stop: ShouldStop,
) -> Latents | None:
    """The class images' latents, in the shapes of the ``instance`` photos; None where none are needed.

    A plan takes the photos for them: its steps cost the same, and nothing is drawn.
    """
    if not config.prior.uses_images():
        return None

    def report(done: int, total: int) -> None:
        tell(ClassImages(done, total))

    if config.run.plan_only:
        paths = instance.paths
    else:
        paths = class_images(
            base, config, resolution, report, accelerator.process_index, accelerator.num_processes, should_stop
        )
        accelerator.wait_for_everyone()
    captions = Captions((config.class_prompt(),) * len(paths))
    photos = Photos(
        paths, resolution, center_crop=True, random_flip=False, name="class", like=instance, captions=captions
    )
    return _latents(base, photos, config)


def _prior_prediction(
    base: BaseModel, adapter: Adapter, noise_schedule: Any, config: TrainConfig
) -> PriorPrediction | None:
    if not config.prior.uses_prediction():
        return None
    return PriorPrediction(base, adapter, noise_schedule, config.class_prompt(), config.adapter.trains_text())


def _learn_word(base: BaseModel, config: TrainConfig) -> None:
    """Give the trigger tokens of its own, where the settings ask for them."""
    wanted, data = config.adapter, config.data
    if wanted.new_tokens:
        start = wanted.new_tokens_init or data.class_noun or data.trigger
        rows = start_rows(base.pipe, base.text_encoders(), start, wanted.new_tokens, config.run.seed)
        base.learn_word(data.trigger, rows)


def _latents(base: BaseModel, photos: Photos, config: TrainConfig) -> Latents:
    on_disk = latents_on_disk(base) if config.data.cache_latents_to_disk else None
    return Latents(photos, base.encode_images, base.vae.config.scaling_factor, config.data.cache_latents, on_disk)


def _parts(base: BaseModel, needed: set[str], sources: list[Latents], tell: OnEvent) -> Parts:
    """What the steps need on the device; where that saves a GPU the autoencoder, everything is encoded now."""
    cached = base.device.type != "cpu" and all(source.can_be_filled() for source in sources)
    if cached:
        tell(Note("Encoding every picture once, so that the autoencoder can leave the GPU."))
        for source in sources:
            source.fill()
    parts = Parts(base, needed if cached else needed | {"vae"})
    parts.leave()
    return parts


def _noise_schedule(base: BaseModel) -> Any:
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler.from_config(base.pipe.scheduler.config)
    schedule.alphas_cumprod = schedule.alphas_cumprod.to(base.device)
    return schedule


def _facts(
    base: BaseModel, progress: Progress, accelerator: Accelerator, config: TrainConfig, of_photos: dict[str, str]
) -> dict[str, str]:
    adapter = progress.adapter
    numbers = f"{adapter.num_parameters():,} parameters in float32"
    dtype = str(base.dtype).removeprefix("torch.")
    published = published_as(progress)
    return {
        "base": f"{base.name} ({base.family.name}, {dtype}, {base.prediction_type})",
        "device": f"{accelerator.device} x {accelerator.num_processes}",
        "attention": base.attention,
        "adapter": f"{adapter.variant.name}, {len(adapter.layers)} layers{_with_word(adapter)}, {numbers}",
        **of_photos,
        "batch": f"{progress.guard['global batch']} photos a step{_beside(config)}",
        **({} if published is None else {"published": published}),
    }


def _with_word(adapter: Adapter) -> str:
    if adapter.word is None:
        return ""
    count = len(next(iter(adapter.word.embeddings.values())).rows)
    return f" and {count} new token{'s' if count > 1 else ''} for {adapter.word.trigger!r}"


def _beside(config: TrainConfig) -> str:
    """What is in a batch besides the photos, in words."""
    if config.prior.uses_prediction():
        return f", each also asked for {config.class_prompt()!r} and held to the base's answer"
    return " and as many class images" if config.prior.uses_images() else ""
