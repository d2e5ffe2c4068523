"""Stage "diffusion": learn to draw what a caption says, text encoder and UNet together, on the autoencoder's latents.

Writes ``ema/`` (fp16: unet, text_encoder), ``raw/`` (the weights that were not averaged, which the next run
goes on from where they are there), ``metrics.jsonl``, ``state.json`` and ``samples.png``.
"""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dora_diffusion.errors import TrainingError
from dora_diffusion.toybox import architecture
from dora_diffusion.toybox.draws import Split
from dora_diffusion.toybox.recipe.autoencoder_stage import VAE_FOLDER, encode
from dora_diffusion.toybox.recipe.caption_ids import CaptionIds
from dora_diffusion.toybox.recipe.loop import (
    Clock,
    Ema,
    Log,
    Optimizer,
    Records,
    compiled,
    half_precision,
    own_seed,
    reproducible,
    seeded,
    set_up,
    train_steps,
)
from dora_diffusion.toybox.recipe.pool import TEST_SEED, Pool, Shards, as_bytes
from dora_diffusion.toybox.recipe.processes import here, wait_for_all
from dora_diffusion.toybox.recipe.prompts import SHEET
from dora_diffusion.toybox.recipe.settings import DiffusionSettings
from dora_diffusion.toybox.recipe.sheets import write_sheet

EMA_FOLDER, RAW_FOLDER = "ema", "raw"
TRAINED = ("unet", "text_encoder")
_COLUMNS = 8  # of the sheet
_TEST_BATCH = 256


def train_diffusion(
    settings: DiffusionSettings,
    work_dir: Path,
    from_dir: Path | None,
    device: str,
    minutes: float | None,
    log: Log,
) -> Path:
    """Train text encoder and UNet, or train them further; returns the folder of the averaged weights.

    Args:
        work_dir: the stage's own folder.
        from_dir: the autoencoder stage's folder.
        minutes: end by then, rendering included; None: after all steps.
        log: told one line at a time.

    Raises:
        TrainingError: there is no autoencoder, or the loss is not finite any more.
        ModelError: the autoencoder or the weights to go on from are damaged.
    """
    clock = Clock(settings.loop, minutes)
    set_up(device)
    if from_dir is None or not (from_dir / VAE_FOLDER).is_dir():
        raise TrainingError(
            f"The stage diffusion starts from the autoencoder's weights, and there are none in {from_dir}. "
            "Run the stage autoencoder first."
        )
    vae = architecture.load_part("vae", from_dir / VAE_FOLDER).eval().requires_grad_(False)
    vae = vae.to(device, memory_format=torch.channels_last)
    words = _words(work_dir / "tokenizer")
    records = Records(work_dir, settings, device, log)
    first = records.state["shards"]
    with closing(Shards(settings.pool, settings.seed, device, work_dir / "tokenizer", first, place=here())) as shards:
        pool = Pool(shards, settings.pool.pool_images, keep=partial(scaled_latents, vae))
        run = _Run(settings, work_dir, device, records, pool, clock, vae, words)
        rows = pool.fill(lambda: clock.filling_may_go_on(settings.pool.fill_share))
        log(f"{rows} pictures encoded after {clock.seconds():.0f} s; {clock.law}")
        clock.start_loop()
        done = train_steps(settings.loop, clock, records, run.step, pool.renew_when_due, run.save)
        if here().is_first:
            run.save(done)
    return work_dir / EMA_FOLDER


def _words(folder: Path) -> Any:
    """The tokenizer; of several processes the first writes it."""
    if here().is_first:
        words = architecture.tokenizer(folder)
        wait_for_all()
        return words
    from transformers import CLIPTokenizer

    wait_for_all()
    return CLIPTokenizer.from_pretrained(folder)


@dataclass(frozen=True)
class Samples:
    """``n`` things to learn from: ``latents`` and ``noise (n, c, h, w)`` float32, ``token_ids (n, MAX_TOKENS)`` and
    ``timesteps (n,)`` int64.
    """

    latents: Tensor
    token_ids: Tensor
    noise: Tensor
    timesteps: Tensor


class _Run:
    """Weights, their average, optimizer, and what is written."""

    def __init__(
        self,
        settings: DiffusionSettings,
        work_dir: Path,
        device: str,
        records: Records,
        pool: Pool,
        clock: Clock,
        vae: Any,
        words: Any,
    ):
        self.settings, self.folder, self.device = settings, work_dir, device
        self.records, self.pool, self.clock, self.vae, self.words = records, pool, clock, vae, words
        seed = seeded(settings.seed, records.state["steps"])
        self.generator = Generator(device).manual_seed(own_seed(seed))
        self.empty = torch.tensor(CaptionIds(work_dir / "tokenizer")(""), device=device)
        self.signal = architecture.scheduler().alphas_cumprod.to(device)
        with reproducible(seed):
            self.unet, self.text_encoder = (self._start(kind).to(device).train() for kind in TRAINED)
        parameters = [*self.unet.parameters(), *self.text_encoder.parameters()]
        self.ema = Ema(parameters, settings.loop.ema)
        self.optimizer = Optimizer(
            self.unet.parameters(), settings.loop, self.text_encoder.parameters(), settings.text_rate
        )
        self.fast_unet = compiled(self.unet, settings.loop, device)
        self.test = self._test_samples()

    def step(self, rate: float, share: float) -> dict[str, Tensor]:
        """One step on one batch; its loss."""
        latents, ids = self.pool.draw_captioned(self.settings.loop.batch, self.generator)
        left_out = self._random(len(ids), 1) < self.settings.empty_captions
        samples = self._samples(latents.float(), torch.where(left_out, self.empty, ids), self.generator)
        loss = self._loss(self.fast_unet, samples)
        self.optimizer.step(loss, rate)
        self.ema.update()
        return {"loss": loss.detach()}

    def save(self, done: int) -> None:
        """Write both sets of weights as fp16, the loss on held-out pictures, the sheet, and how far this got."""
        for kind in TRAINED:
            architecture.save_part(kind, getattr(self, kind), self.folder / RAW_FOLDER / kind)
        with self.ema.averaged():
            for kind in TRAINED:
                architecture.save_part(kind, getattr(self, kind), self.folder / EMA_FOLDER / kind)
            figures = {"test_loss": round(self._test_loss(), 5), "test_images": self.settings.test_images}
            self._draw_sheet()
        self.records.saved(done, self.settings.loop.batch, self.pool.shards_used, self.clock, figures)

    def _start(self, kind: str) -> Any:
        """The last output, or fresh weights."""
        for folder in (self.folder / RAW_FOLDER / kind, self.folder / EMA_FOLDER / kind):
            if folder.is_dir():
                return architecture.load_part(kind, folder)
        settings, channels = self.settings, self.vae.config.latent_channels
        if kind == "text_encoder":
            return architecture.text_encoder(len(self.words), settings.text_width, settings.text_layers)
        return architecture.unet(settings.channels, settings.layers, settings.text_width, channels, settings.pool.size)

    def _samples(self, latents: Tensor, ids: Tensor, generator: Generator) -> Samples:
        """Noise and timesteps for a batch; the timesteps are spread evenly over the schedule."""
        count, device = len(latents), self.device
        places = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
        timesteps = (places * (architecture.TRAIN_STEPS / count)).long().clamp(max=architecture.TRAIN_STEPS - 1)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        return Samples(latents, ids, noise, timesteps)

    def _loss(self, unet: Any, samples: Samples) -> Tensor:
        """Mean squared error of the velocity (arXiv:2202.00512, appendix D)."""
        signal = self.signal[samples.timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * samples.latents + (1 - signal).sqrt() * samples.noise
        velocity = signal.sqrt() * samples.noise - (1 - signal).sqrt() * samples.latents
        with half_precision(self.device):
            hidden = self.text_encoder(samples.token_ids).last_hidden_state
            predicted = unet(noisy, samples.timesteps, encoder_hidden_states=hidden, return_dict=False)[0]
        return F.mse_loss(predicted.float(), velocity)

    def _test_samples(self) -> list[Samples]:
        """The same held-out pictures, captions, noise and timesteps in every run, in batches."""
        count = self.settings.test_images
        changes = {"shard": count, "pool_images": count, "workers": 0}
        shards = Shards(
            self.settings.pool.model_copy(update=changes),
            TEST_SEED,
            self.device,
            self.folder / "tokenizer",
            split=Split.TEST,
        )
        shard = next(shards)
        latents = scaled_latents(self.vae, shard.pictures).float()
        generator = Generator(self.device).manual_seed(TEST_SEED)
        ids = shard.token_ids[:, 0].long()
        return [
            self._samples(latents[i : i + _TEST_BATCH], ids[i : i + _TEST_BATCH], generator)
            for i in range(0, count, _TEST_BATCH)
        ]

    @torch.no_grad()
    def _test_loss(self) -> float:
        losses = [self._loss(self.unet, samples) * len(samples.latents) for samples in self.test]
        return torch.stack(losses).sum().item() / self.settings.test_images

    def _draw_sheet(self) -> None:
        settings, device = self.settings, self.device
        shipped = {kind: architecture.half(getattr(self, kind)).float().to(device) for kind in TRAINED}
        pipe = architecture.pipeline(self.vae, shipped["text_encoder"], self.words, shipped["unet"])
        prompts = [SHEET[i % len(SHEET)] for i in range(settings.sheet_prompts)]
        with torch.no_grad(), half_precision(device):
            images = pipe(
                prompts,
                height=settings.pool.size,
                width=settings.pool.size,
                num_inference_steps=settings.sampling_steps,
                guidance_scale=settings.guidance,
                generator=[Generator().manual_seed(i) for i in range(len(prompts))],
                output_type="pt",
            ).images
        write_sheet(as_bytes(images.float()).split(_COLUMNS), self.folder / "samples.png")

    def _random(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)


@torch.no_grad()
def scaled_latents(vae: Any, pictures: Tensor) -> Tensor:
    """``pictures (n, 3, h, w)``, bytes, as the UNet sees them: means of the latents at unit variance, fp16."""
    return (encode(vae, pictures) * vae.config.scaling_factor).half()
