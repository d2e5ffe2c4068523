"""Stage "eye" of the recipe: train the eye on renders and their autoencoder round trips.

Starts from the autoencoder stage's folder (for the round trips) and from its own last output, whose weights it goes on
from. Writes ``eye.json``, ``eye.safetensors``, ``details.safetensors``, ``state.json`` and ``metrics.jsonl``.
"""

from pathlib import Path

import torch
from torch import Generator, Tensor

from dora_diffusion.config.fields import Settings, free
from dora_diffusion.errors import ModelError
from dora_diffusion.toybox.eye import CONFIG_FILE, DEPTHS, WIDTHS, Eye, Seen, load_eye, save_eye
from dora_diffusion.toybox.recipe.eye_acceptance import quick_figures
from dora_diffusion.toybox.recipe.eye_augment import Dice, augment, decoy_kinds
from dora_diffusion.toybox.recipe.eye_losses import Details, found_share, head_losses, identity_loss, identity_rows
from dora_diffusion.toybox.recipe.eye_pool import MEMBERS, Batch, EyePool, EyePoolSettings, RoundTrip
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
from dora_diffusion.toybox.recipe.processes import here
from dora_diffusion.toybox.recipe.settings import LoopSettings

DETAILS_FILE = "details.safetensors"
_ROUND_TRIP_BATCH = 256


class EyeSettings(Settings):
    """The stage that learns to say what a picture shows and which toy it is."""

    seed: int = free(1, "seed of weights, toys and batches", ge=0)
    widths: tuple[int, ...] = free(WIDTHS, "channels of the network, from half the picture's side down", min_length=1)
    depths: tuple[int, ...] = free(DEPTHS, "residual blocks at each of them", min_length=1)
    family_share: float = free(0.66, "share of a batch that is families, two pictures of each toy", gt=0, lt=1)
    decoy_share: float = free(0.06, "share of a batch that is pictures without a toy", ge=0, lt=1)
    classes: int = free(6, "classes that most families of a batch are of", ge=1)
    copies: float = free(0.35, "share of pictures seen through the autoencoder", ge=0, le=1)
    backgrounds: float = free(0.35, "share of photos that get another background", ge=0, le=1)
    temperature: float = free(0.07, "what the identity loss divides cosines by", gt=0)
    sibling_weight: float = free(3.0, "how many strangers a sibling counts for in the identity loss", gt=0)
    identity_weight: float = free(1.0, "weight of the identity loss; each of the four heads has 1", ge=0)
    detail_weight: float = free(0.3, "weight of reading a toy's details out of its embedding", ge=0)
    test_toys: int = free(252, "held-out toys that every saving is measured on; 0: none", ge=0)
    pool: EyePoolSettings = EyePoolSettings()
    loop: LoopSettings = LoopSettings(
        steps=14_000, batch=1_024, learning_rate=2e-3, weight_decay=0.03, beta2=0.98, decay=0.8, final_rate=0.01
    )

    @classmethod
    def smoke(cls) -> "EyeSettings":
        """Everything once, in seconds, on a CPU."""
        return cls(
            widths=(8, 16, 16, 16),
            depths=(1, 1, 1, 1),
            family_share=0.75,
            decoy_share=0.13,
            classes=2,
            test_toys=0,
            pool=EyePoolSettings(families=2, views=2, plain=8, part=1, size=32, supersample=1, refresh_every=1),
            loop=LoopSettings(steps=2, batch=32, warmup=0, log_every=1),
        )

    @property
    def families(self) -> int:
        """Families in a batch: no more than the pool has."""
        return min(self.pool.families, max(1, round(self.loop.batch * self.family_share / (2 * MEMBERS))))

    @property
    def plain(self) -> int:
        """Single toys in a batch, decoys among them."""
        return max(1, self.loop.batch - self.families * 2 * MEMBERS)

    @property
    def decoys(self) -> int:
        """Pictures without a toy in a batch."""
        return min(self.plain, round(self.loop.batch * self.decoy_share))


def train_eye(
    settings: EyeSettings, work_dir: Path, from_dir: Path | None, device: str, minutes: float | None, log: Log
) -> Path:
    """Train the eye, or train it further; returns the folder of its weights, ``work_dir``.

    Args:
        work_dir: the stage's folder. Where it holds an eye already, this run starts from it, with other toys.
        from_dir: the autoencoder stage's folder; None: no round trips.
        minutes: end by then, rendering included; None: no limit.
        log: told one line at a time.

    Raises:
        ModelError: the autoencoder or the last output cannot be read.
        TrainingError: the loss is not finite any more.
    """
    clock = Clock(settings.loop, minutes)
    set_up(device)
    records = Records(work_dir, settings, device, log)
    round_trip = load_round_trip(from_dir, device) if from_dir else None
    log("no autoencoder given: no picture is seen through one" if round_trip is None else f"autoencoder: {from_dir}")
    pool = EyePool(settings.pool, seeded(settings.seed, 1), device, round_trip, records.state["shards"], here())
    run = _Run(settings, work_dir, device, records, pool, clock)
    count = pool.fill(lambda: clock.filling_may_go_on(settings.pool.fill_share))
    log(f"{count} pictures after {clock.seconds():.0f} s; {clock.law}")
    clock.start_loop()
    done = train_steps(settings.loop, clock, records, run.step, pool.renew_when_due, run.save)
    if here().is_first:
        run.save(done)
    return work_dir


class _Run:
    """The network, its average, its teacher and its optimizer."""

    def __init__(
        self, settings: EyeSettings, work_dir: Path, device: str, records: Records, pool: EyePool, clock: Clock
    ):
        self.settings, self.folder, self.device = settings, work_dir, device
        self.records, self.pool, self.clock = records, pool, clock
        seed = seeded(settings.seed, 2, records.state["steps"])
        self.generator = Generator(device).manual_seed(own_seed(seed))
        with reproducible(seed):
            self.eye, self.details = _start(settings, work_dir)
        self.eye.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.details.to(device)
        self.average = Ema(self.eye.parameters(), settings.loop.ema)
        self.optimizer = Optimizer([*self.eye.parameters(), *self.details.parameters()], settings.loop)
        self.look = compiled(self.eye, settings.loop, device)
        self.augment = compiled(augment, settings.loop, device)

    def step(self, rate: float, share: float) -> dict[str, Tensor]:
        """One step on one batch; its losses."""
        settings, generator = self.settings, self.generator
        batch = self.pool.batch(settings.families, settings.plain, settings.classes, settings.copies, generator)
        dice = Dice.throw(len(batch.images), settings.pool.size, self.device, generator)
        images, replaced = self.augment(
            batch.images, batch.masks, batch.labels.style, dice, settings.backgrounds, settings.decoys
        )
        with half_precision(self.device):
            seen = self.look(images.contiguous(memory_format=torch.channels_last))
        losses = self._losses(seen, batch, replaced, decoy_kinds(dice, settings.decoys))
        self.optimizer.step(losses["loss"], rate)
        self.average.update()
        return {name: value.detach() for name, value in losses.items()}

    def save(self, done: int) -> None:
        """Write the averaged weights, what they reach, the teacher, and how far this got."""
        from safetensors.torch import save_file

        toys, pool = self.settings.test_toys, self.settings.pool
        with self.average.averaged():
            save_eye(self.eye, self.folder)
            figures = quick_figures(self.eye, self.device, toys, pool.size, pool.supersample) if toys else {}
        weights = {name: value.detach().cpu().contiguous() for name, value in self.details.state_dict().items()}
        save_file(weights, self.folder / DETAILS_FILE)
        self.records.saved(done, self.settings.loop.batch, self.pool.number, self.clock, figures)

    def _losses(self, seen: Seen, batch: Batch, replaced: Tensor, decoys: Tensor) -> dict[str, Tensor]:
        settings = self.settings
        rows = identity_rows(batch, len(decoys))
        embedding, toy, family = seen.embedding[rows], batch.toy[rows], batch.family[rows]
        found = head_losses(seen, batch, replaced, decoys)
        identity = identity_loss(embedding, toy, family, settings.temperature, settings.sibling_weight)
        details = self.details.loss(seen.embedding, batch)
        heads = torch.stack(list(found.values())).sum()
        found |= {"identity": identity, "details": details, "found": found_share(embedding.detach(), toy)}
        found["loss"] = heads + settings.identity_weight * identity + settings.detail_weight * details
        return found


def load_round_trip(folder: Path, device: str) -> RoundTrip:
    """Pictures in 0 to 1 through the autoencoder in ``folder`` (or in its ``vae``), as pictures again.

    Raises:
        ModelError: there is no autoencoder that diffusers can read.
    """
    from diffusers import AutoencoderKL

    place = folder / "vae" if (folder / "vae").is_dir() else folder
    try:
        autoencoder = AutoencoderKL.from_pretrained(place)
    except Exception as error:  # diffusers raises half a dozen kinds for a folder that is not one
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"There is no autoencoder in {place} ({reason}). Give the folder that the autoencoder stage wrote."
        ) from error
    autoencoder = autoencoder.to(device, torch.float32, memory_format=torch.channels_last).eval().requires_grad_(False)

    @torch.no_grad()
    def round_trip(images: Tensor) -> Tensor:
        made = []
        for part in images.split(_ROUND_TRIP_BATCH):
            with half_precision(device):
                latents = autoencoder.encode(part.to(device) * 2 - 1).latent_dist.mode()
                made.append(autoencoder.decode(latents).sample.float())
        return (torch.cat(made) / 2 + 0.5).clamp(0, 1).to(images.device)

    return round_trip


def _start(settings: EyeSettings, work_dir: Path) -> tuple[Eye, Details]:
    """New networks, or those that the last run wrote."""
    from safetensors.torch import load_file

    eye, details = Eye(settings.widths, settings.depths, settings.pool.size), Details()
    if (work_dir / CONFIG_FILE).is_file():
        before = load_eye(work_dir)
        if (before.widths, before.depths, before.size) != (eye.widths, eye.depths, eye.size):
            raise ModelError(
                f"The eye in {work_dir} has widths {before.widths}, depths {before.depths} and size {before.size}; "
                "the settings ask for others. Use the same settings, or an empty folder."
            )
        eye = before.requires_grad_(True)
        if (work_dir / DETAILS_FILE).is_file():
            details.load_state_dict(load_file(work_dir / DETAILS_FILE))
    return eye, details
