"""Everything the stages depend on besides their input and the machine."""

from pathlib import Path

from pydantic import model_validator

from dora_diffusion.config.fields import Settings, free
from dora_diffusion.errors import ConfigError


class PoolSettings(Settings):
    """The pictures a stage learns from."""

    pool_images: int = free(401_408, "pictures a process holds at once; a whole number of shards", ge=1)
    shard: int = free(8_192, "pictures drawn from one seed, rendered and captioned together", ge=1)
    size: int = free(128, "side of a picture in pixels", ge=16, multiple_of=16)
    supersample: int = free(2, "rays a pixel, along each side", ge=1)
    captions: int = free(4, "captions of each picture, one of them drawn each time; 0 writes none", ge=0)
    workers: int = free(4, "helpers of a training process that write captions; 0: it writes them itself", ge=0)
    fill_share: float = free(0.4, "of the minutes given, at most so much goes into filling the pool", gt=0, le=1)
    refresh_every: int = free(0, "steps between two renewals of the oldest shard; 0: never", ge=0)

    @model_validator(mode="after")
    def _whole_shards(self) -> "PoolSettings":
        if self.pool_images % self.shard:
            raise ConfigError(
                f"pool_images must be a multiple of shard ({self.shard}), got {self.pool_images}; "
                f"the nearest is {max(1, round(self.pool_images / self.shard)) * self.shard}."
            )
        return self


class LoopSettings(Settings):
    """Steps, their size, and how often something is written."""

    steps: int = free(20_000, "optimizer steps of this run", ge=1)
    batch: int = free(128, "pictures a step of one process; n of them (torchrun) see n times as many", ge=1)
    learning_rate: float = free(1e-3, "highest learning rate", gt=0)
    warmup: int = free(300, "steps in which it rises", ge=0)
    decay: float = free(0.5, "last share of the run in which it falls, as a cosine", ge=0, le=1)
    final_rate: float = free(0.02, "what it falls to, as a share of the highest", ge=0, le=1)
    weight_decay: float = free(0.01, "AdamW's weight decay", ge=0)
    beta2: float = free(0.99, "AdamW's second decay; the first is 0.9", ge=0, lt=1)
    clip: float = free(1.0, "gradients are clipped to this norm", gt=0)
    ema: float = free(0.999, "decay of the averaged weights, which are the result", ge=0, lt=1)
    log_every: int = free(100, "steps between two lines of metrics.jsonl", ge=1)
    save_minutes: float = free(4.0, "minutes between two savings; there is one at the end in any case", gt=0)
    finish_minutes: float = free(1.0, "of the minutes given, kept for the last measurements and savings", ge=0)
    compile: bool = free(True, "use torch.compile on a GPU")


class AutoencoderSettings(Settings):
    """The stage that learns to put a picture into latents and back."""

    seed: int = free(1, "seed of weights, toys and batches", ge=0)
    channels: tuple[int, ...] = free((64, 96, 112, 96), "widths, from the picture's side to the latents'", min_length=1)
    layers: int = free(1, "residual blocks a level of the encoder; the decoder has one more", ge=1)
    latent_channels: int = free(8, "channels of the latents", ge=1)
    mse_weight: float = free(8.0, "of the squared error, beside the absolute error's 1", ge=0)
    gradient_weight: float = free(0.5, "of the error of the picture's slopes, which keeps edges sharp", ge=0)
    kl_weight: float = free(1e-4, "of the divergence of a latent from a standard normal", ge=0)
    critic_weight: float = free(0.0, "of a patch critic that asks for texture; 0: none", ge=0)
    critic_start: float = free(0.5, "share of the run after which the critic speaks", ge=0, le=1)
    test_photos: int = free(2_000, "held-out photos that the result is measured on", ge=1)
    test_photos_meanwhile: int = free(256, "how many of those at every saving", ge=1)
    scale_images: int = free(20_480, "pictures whose latents give the scaling factor", ge=1)
    pool: PoolSettings = PoolSettings(captions=0)
    loop: LoopSettings = LoopSettings(weight_decay=1e-4)

    @model_validator(mode="after")
    def _channels_fit(self) -> "AutoencoderSettings":
        if len(self.channels) != 4 or any(width % 16 for width in self.channels):
            raise ConfigError(f"channels must be 4 multiples of 16 (three halvings of the side), got {self.channels}.")
        return self

    @classmethod
    def smoke(cls) -> "AutoencoderSettings":
        """Everything once, in seconds, on a CPU."""
        return cls(
            channels=(16, 16, 16, 16),
            test_photos=4,
            test_photos_meanwhile=2,
            scale_images=8,
            pool=_tiny_pool(0),
            loop=_tiny_loop(),
        )


class DiffusionSettings(Settings):
    """The stage that learns to draw what a caption says."""

    seed: int = free(1, "seed of weights, toys, captions, noise and batches", ge=0)
    channels: tuple[int, ...] = free((160, 192), "widths of the UNet, from the latents' side down", min_length=1)
    layers: int = free(1, "residual and attention blocks a level on the way down; one more on the way up", ge=1)
    text_width: int = free(256, "width of the text encoder", ge=32)
    text_layers: int = free(4, "layers of the text encoder", ge=1)
    text_rate: float = free(0.3, "learning rate of the text encoder, as a share of the UNet's", gt=0, le=1)
    empty_captions: float = free(0.1, "share of the samples without a caption, for guidance", ge=0, lt=1)
    test_images: int = free(1_024, "held-out pictures that the loss is measured on at every saving", ge=1)
    guidance: float = free(4.0, "guidance scale of the sheet", ge=1)
    sampling_steps: int = free(25, "sampling steps of the sheet", ge=1)
    sheet_prompts: int = free(32, "pictures on the sheet", ge=1)
    pool: PoolSettings = PoolSettings()
    loop: LoopSettings = LoopSettings(steps=30_000, batch=512, learning_rate=7e-4, decay=0.35, ema=0.9995)

    @model_validator(mode="after")
    def _channels_fit(self) -> "DiffusionSettings":
        if any(width % 32 for width in self.channels):
            raise ConfigError(f"channels must be multiples of 32, got {self.channels}.")
        if not self.pool.captions:
            raise ConfigError("The stage diffusion learns from captions: pool.captions must be 1 or more, got 0.")
        return self

    @classmethod
    def smoke(cls) -> "DiffusionSettings":
        """Everything once, in seconds, on a CPU."""
        return cls(
            channels=(32, 32),
            text_width=32,
            text_layers=1,
            test_images=4,
            sampling_steps=2,
            sheet_prompts=2,
            pool=_tiny_pool(2),
            loop=_tiny_loop(),
        )


class PackSettings(Settings):
    """The folder that is shipped."""

    figures: Path | None = free(None, "JSON file of further figures for the model card: what to value, as text")
    parts: tuple[str, ...] = free((), "files or folders of the work folder to write as parts/*.tar.part* too")
    part_size: int = free(15_000_000, "bytes of such a part at most", ge=1)

    @classmethod
    def smoke(cls) -> "PackSettings":
        """The same: packing takes no time."""
        return cls()


def _tiny_pool(captions: int) -> PoolSettings:
    return PoolSettings(pool_images=8, shard=4, size=32, supersample=1, captions=captions, workers=0, refresh_every=2)


def _tiny_loop() -> LoopSettings:
    return LoopSettings(steps=4, batch=2, warmup=2, log_every=2, finish_minutes=0)
