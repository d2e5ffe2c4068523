"""Stage "autoencoder": learn to put pictures into latents of an eighth of their side, and back.

Writes ``vae/`` (fp16, the averaged weights, with the scaling factor measured on its own latents), ``metrics.jsonl``,
``state.json`` and ``reconstructions.png``, and goes on from ``vae/`` where that is there.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from dora_diffusion.toybox import architecture
from dora_diffusion.toybox.recipe.critic import Critic
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
from dora_diffusion.toybox.recipe.pool import Pool, Shards, as_bytes, as_pixels, held_out_photos
from dora_diffusion.toybox.recipe.processes import here
from dora_diffusion.toybox.recipe.settings import AutoencoderSettings
from dora_diffusion.toybox.recipe.sheets import write_sheet, zoomed

VAE_FOLDER = "vae"
_BATCH = 128  # pictures measured or encoded at once
_COLUMNS = 10  # of the sheet
_LOG_VARIANCE = (-12.0, 4.0)  # what a latent's log variance is clamped to


class RoundTrip(nn.Module):
    """Encoder, noise, decoder: what is trained."""

    def __init__(self, vae: Any):
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction of ``pixels (n, 3, h, w)``, and mean and log variance of its latents, float32."""
        mean, log_variance = self.vae.quant_conv(self.vae.encoder(pixels)).float().chunk(2, 1)
        log_variance = log_variance.clamp(*_LOG_VARIANCE)
        latents = mean + noise * torch.exp(0.5 * log_variance)
        return self.vae.decoder(self.vae.post_quant_conv(latents)).float(), mean, log_variance


def train_autoencoder(
    settings: AutoencoderSettings,
    work_dir: Path,
    from_dir: Path | None,
    device: str,
    minutes: float | None,
    log: Log,
) -> Path:
    """Train the autoencoder, or train it further; returns the folder of its weights.

    Args:
        work_dir: the stage's own folder.
        from_dir: not used: this is the first stage.
        minutes: end by then, rendering included; None: after all steps.
        log: told one line at a time.

    Raises:
        ModelError: the weights to go on from are damaged.
        TrainingError: the loss is not finite any more.
    """
    clock = Clock(settings.loop, minutes)
    set_up(device)
    records = Records(work_dir, settings, device, log)
    shards = Shards(settings.pool, settings.seed, device, first=records.state["shards"], place=here())
    pool = Pool(shards, settings.pool.pool_images, keep=lambda pictures: pictures)
    run = _Run(settings, work_dir, device, records, pool, clock)
    rows = pool.fill(lambda: clock.filling_may_go_on(settings.pool.fill_share))
    log(f"{rows} pictures after {clock.seconds():.0f} s; {clock.law}")
    clock.start_loop()
    done = train_steps(settings.loop, clock, records, run.step, pool.renew_when_due, run.save)
    if here().is_first:
        run.finish(done)
    return work_dir / VAE_FOLDER


class _Run:
    """Weights, their average, optimizer, and what is written."""

    def __init__(
        self,
        settings: AutoencoderSettings,
        work_dir: Path,
        device: str,
        records: Records,
        pool: Pool,
        clock: Clock,
    ):
        self.settings, self.folder, self.device = settings, work_dir, device
        self.records, self.pool, self.clock = records, pool, clock
        seed = seeded(settings.seed, records.state["steps"])
        self.generator = Generator(device).manual_seed(own_seed(seed))
        self.photos = held_out_photos(settings.test_photos, settings.pool, device)
        with reproducible(seed):
            self.vae = self._start().to(device, memory_format=torch.channels_last).train()
            self.critic = Critic(device) if settings.critic_weight else None
        self.ema = Ema(self.vae.parameters(), settings.loop.ema)
        self.optimizer = Optimizer(self.vae.parameters(), settings.loop)
        self.round_trip = compiled(RoundTrip(self.vae), settings.loop, device)

    def step(self, rate: float, share: float) -> dict[str, Tensor]:
        """One step on one batch; its losses."""
        settings = self.settings
        pixels = as_pixels(self.pool.draw(settings.loop.batch, self.generator))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        side = pixels.shape[-1] // architecture.FACTOR
        shape = (len(pixels), self.vae.config.latent_channels, side, side)
        noise = torch.randn(shape, generator=self.generator, device=self.device)
        with half_precision(self.device):
            made, mean, log_variance = self.round_trip(pixels, noise)
        losses = reconstruction_losses(made, pixels)
        losses["kl"] = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = losses["l1"] + settings.mse_weight * losses["mse"] + settings.gradient_weight * losses["gradient"]
        loss = loss + settings.kl_weight * losses["kl"]
        critic = self.critic if share >= settings.critic_start else None
        if critic is not None:
            loss = loss + settings.critic_weight * critic.complaint(made)
        self.optimizer.step(loss, rate)
        if critic is not None:
            critic.learn(made, pixels)
        self.ema.update()
        return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}

    def save(self, done: int) -> None:
        """Save, measured on some of the test photos."""
        self._save(done, self.settings.test_photos_meanwhile)

    def finish(self, done: int) -> None:
        """Save, measured on all test photos, and draw the sheet."""
        shipped = self._save(done, self.settings.test_photos)
        shown = self.photos[: 2 * _COLUMNS]
        made = as_bytes(reconstructions(shipped, shown).clamp(-1, 1) / 2 + 0.5)
        rows = []
        for first in range(0, len(shown), _COLUMNS):
            before, after = shown[first : first + _COLUMNS], made[first : first + _COLUMNS]
            rows += [before, after, zoomed(before), zoomed(after)]
        write_sheet(rows, self.folder / "reconstructions.png")

    def _save(self, done: int, photos: int) -> Any:
        """Write the averaged weights as fp16, what they reach, and how far this got; returns them as they are read."""
        shipped = shipped_copy(self.vae, self.ema, self.device)
        scale = 1 / encode(shipped, self.pool.first(self.settings.scale_images)).std().item()
        shipped.register_to_config(scaling_factor=round(scale, 6))
        shown = self.photos[:photos]
        figures: dict[str, Any] = {f"psnr_{name}": value for name, value in psnr(shipped, shown).items()}
        figures |= {"test_photos": len(shown), "scaling_factor": shipped.config.scaling_factor}
        architecture.save_part("vae", shipped, self.folder / VAE_FOLDER)
        self.records.saved(done, self.settings.loop.batch, self.pool.shards_used, self.clock, figures)
        return shipped

    def _start(self) -> Any:
        """The last output, or fresh weights."""
        settings, folder = self.settings, self.folder / VAE_FOLDER
        if folder.is_dir():
            return architecture.load_part("vae", folder)
        return architecture.autoencoder(
            settings.channels, settings.layers, settings.latent_channels, settings.pool.size
        )


def reconstruction_losses(made: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """How far ``made`` is from ``pixels``: absolute, squared, and in its slopes along both axes."""
    wrong = made - pixels
    slopes = wrong.diff(dim=-1).abs().mean() + wrong.diff(dim=-2).abs().mean()
    return {"l1": wrong.abs().mean(), "mse": wrong.square().mean(), "gradient": slopes}


def shipped_copy(vae: Any, ema: Ema, device: str) -> Any:
    """The autoencoder as it will be read from disk: averaged weights, rounded to fp16, computed in float32."""
    with ema.averaged():
        copy = architecture.half(vae)
    return copy.float().to(device).requires_grad_(False)


@torch.no_grad()
def encode(vae: Any, pictures: Tensor) -> Tensor:
    """Means of the latents of ``pictures (n, 3, h, w)``, bytes; not scaled."""
    parts = [vae.encode(as_pixels(part)).latent_dist.mode() for part in pictures.split(_BATCH)]
    return torch.cat(parts)


@torch.no_grad()
def reconstructions(vae: Any, pictures: Tensor) -> Tensor:
    """``pictures``, bytes, through the latents and back, as pixels around -1 to 1."""
    return torch.cat([vae.decode(encode(vae, part)).sample for part in pictures.split(_BATCH)])


def psnr(vae: Any, pictures: Tensor) -> dict[str, float]:
    """Peak signal to noise ratio in dB of reconstructions, as they are seen: rounded to bytes.

    Returns:
        mean: over pictures; pooled: of the mean squared error over all; worst: the 5th percentile of the pictures.
    """
    errors = []
    for part in pictures.split(_BATCH):
        seen = as_bytes(reconstructions(vae, part).clamp(-1, 1) / 2 + 0.5)
        errors.append(((seen.float() - part.float()) / 255).square().mean((1, 2, 3)))
    error = torch.cat(errors).double().clamp(min=1e-10)
    each = -10 * error.log10()
    figures = {"mean": each.mean(), "pooled": -10 * error.mean().log10(), "worst": each.quantile(0.05)}
    return {name: round(value.item(), 3) for name, value in figures.items()}
