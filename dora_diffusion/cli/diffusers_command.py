"""Commands written for diffusers' ``train_dreambooth_lora.py`` and ``train_dreambooth_lora_sdxl.py``.

Most of their flags are settings here, under the same name. This file has those that say something about other settings
(epochs, a scaled rate), those that have nothing left to do here, and the scripts' defaults.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora_diffusion.cli.aliases import canonical
from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.errors import ConfigError
from dora_diffusion.machine import launched_processes

NO_PREVIEWS = "--validation_epochs: without effect, as no --validation_prompt says what to draw."
Settled = tuple[TrainConfig, str]
"""Settings, and what to tell the user about them; "" for nothing."""


@dataclass(frozen=True)
class Command:
    """A command line, taken apart.

    Attributes:
        arguments: what is parsed as settings.
        asked: the scripts' flags that are no settings, each with its value ("" for a switch).
        given: every flag of the command line.
    """

    arguments: list[str]
    asked: dict[str, str]
    given: frozenset[str]


def read_command(arguments: list[str]) -> Command:
    """Take the scripts' own flags out of a command line.

    Raises:
        ConfigError: one of them lacks its value.
    """
    settings = set(_leaves())
    kept: list[str] = []
    asked: dict[str, str] = {}
    given: set[str] = set()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = canonical(argument)
        if flag.startswith("--"):
            given.add(flag)
        if flag not in FLAGS or flag.removeprefix("--") in settings:
            kept.append(argument)
        elif flag in SWITCHES or equals:
            asked[flag] = value
        elif rest and not rest[0].startswith("--"):
            asked[flag] = rest.pop(0)
        else:
            raise ConfigError(f"{flag} needs a value.")
    return Command(kept, asked, frozenset(given))


def settle(command: Command, config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The settings with what the scripts' flags ask for, and what the user should read about it.

    Raises:
        ConfigError: a flag asks for what is not done here; the message says why and what to use.
    """
    notes = []
    for flag, settled in FLAGS.items():
        if flag in command.asked:
            config, note = settled(config, command.asked[flag], command.given)
            notes.append(note)
    if command.given >= REQUIRED:
        notes.append(differences(config, command.given))
    return config, [note for note in notes if note]


# ---------------------------------------------------------------------------------- flags about other settings
def _data_set(config: TrainConfig, name: str, given: frozenset[str]) -> Settled:
    if "--instance_data_dir" in given:
        raise ConfigError("Photos come from --instance_data_dir or --dataset_name; give one of them.")
    if not Path(name).is_dir():
        raise ConfigError(
            f"--dataset_name: {name} is no folder here, and a data set of the hub is not downloaded by itself. Get it "
            f"with: hf download --repo-type dataset {name} --local-dir photos. Then use --instance_data_dir photos."
        )
    return _with(config, "data", instance_data_dir=Path(name)), f"--dataset_name: the photos are those in {name}."


def _epochs(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
    epochs = _whole("--num_train_epochs", value)
    if "--max_train_steps" in given:
        return config, "--num_train_epochs: without effect beside --max_train_steps, as in diffusers' scripts."
    steps = epochs * steps_per_epoch(config)
    note = f"--num_train_epochs: {epochs} epochs of {steps_per_epoch(config)} steps are {steps} steps."
    return _with(config, "run", max_train_steps=steps), note


def _validation_epochs(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
    epochs = _whole("--validation_epochs", value)
    if "--validation_steps" in given:
        return config, "--validation_epochs: without effect beside --validation_steps."
    each = steps_per_epoch(config)
    steps, whole_run = epochs * each, config.run.max_train_steps
    often = f"every {steps} steps and at the end" if steps < whole_run else f"at the end only, after {whole_run} steps"
    note = f"--validation_epochs: {epochs} epochs of {each} steps are {steps} steps; previews are drawn {often}."
    return _with(config, "run", validation_steps=steps), note if config.run.validation_prompt else NO_PREVIEWS


def steps_per_epoch(config: TrainConfig) -> int:
    """Optimizer steps in which the scripts see every photo once; every class image, if there are more of those.

    1 where no folder is given: a run without photos is refused anyway.
    """
    if config.data.instance_data_dir is None:
        return 1
    from dora_diffusion.data.photos import list_photos

    photos = len(list_photos(config.data.instance_data_dir)) * config.data.repeats
    if config.prior.uses_images():
        photos = max(photos, config.prior.num_class_images)
    batches = math.ceil(photos / (config.run.train_batch_size * launched_processes()))
    return math.ceil(batches / config.run.gradient_accumulation_steps)


def _scaled_rate(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
    run, processes = config.run, launched_processes()
    factor = run.gradient_accumulation_steps * run.train_batch_size * processes
    if factor == 1:
        return config, ""
    rate = config.optim.learning_rate * factor
    parts = f"{run.gradient_accumulation_steps} accumulated x {run.train_batch_size} photos x {processes} processes"
    return _with(config, "optim", learning_rate=rate), f"--scale_lr: the learning rate is {rate:g} ({parts})."


def _eight_bit(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
    if config.optim.optimizer != "adamw":
        return config, "--use_8bit_adam: without effect beside another --optimizer, as in diffusers' scripts."
    return _with(config, "optim", optimizer="adamw8bit"), ""


def _token(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
    trackers = config.run.report_to
    if any(name in trackers for name in ("wandb", "trackio", "all")):
        raise ConfigError(
            f"--hub_token beside --report_to {trackers}: such trackers store the command line, and the token with it. "
            "Log in with: hf auth login; or set the environment variable HF_TOKEN."
        )
    # Where the hub's package looks for it. No setting: settings are written into the run's folder and told to trackers.
    os.environ["HF_TOKEN"] = value
    return config, ""


def _class_images_precision(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
    wanted = {"fp32": "no"}.get(value, value)
    base = config.run.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if wanted != base:
        raise ConfigError(
            f"--prior_generation_precision {value}: class images are drawn by the base as it is loaded, which is in "
            f"{'fp32' if base == 'no' else base} (--mixed_precision). Leave the flag out."
        )
    return config, ""


def _text_embeddings(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
    if config.adapter.train_text_encoder:
        raise ConfigError("--pre_compute_text_embeddings cannot be used with --train_text_encoder; leave one out.")
    return config, "--pre_compute_text_embeddings: done by itself unless the text encoder is trained."


# --------------------------------------------------------------------------------- flags with nothing left to do
def _only(flag: str, allowed: str, reason: str) -> Callable[[TrainConfig, str, frozenset[str]], Settled]:
    """A flag of which one value is what is done anyway."""

    def settled(config: TrainConfig, value: str, given: frozenset[str]) -> Settled:
        if not _same(value, allowed):
            raise ConfigError(f"{flag} {value}: {reason}. Leave the flag out.")
        return config, ""

    return settled


def _needless(flag: str, reason: str) -> Callable[[TrainConfig, str, frozenset[str]], Settled]:
    return lambda config, value, given: (config, f"{flag}: without effect; {reason}.")


SWITCHES = frozenset({"--scale_lr", "--use_8bit_adam", "--pre_compute_text_embeddings"})

FLAGS: dict[str, Callable[[TrainConfig, str, frozenset[str]], Settled]] = {
    "--dataset_name": _data_set,  # first: epochs are counted in its photos
    "--num_train_epochs": _epochs,
    "--validation_epochs": _validation_epochs,
    "--scale_lr": _scaled_rate,
    "--use_8bit_adam": _eight_bit,
    "--hub_token": _token,
    "--prior_generation_precision": _class_images_precision,
    "--pre_compute_text_embeddings": _text_embeddings,
    "--image_interpolation_mode": _only(
        "--image_interpolation_mode", "lanczos", "photos are resized by Lanczos' filter, the sharpest"
    ),
    "--image_column": _only("--image_column", "image", "photos are files of a folder, which has no columns"),
    "--lora_dropout": _only("--lora_dropout", "0", "adapters have no dropout here; --rank is what holds them back"),
    "--dataloader_num_workers": _needless("--dataloader_num_workers", "photos are prepared in the training process"),
    "--local_rank": _needless("--local_rank", "accelerate launch says which process this is"),
}

# ---------------------------------------------------------------------------------------- the scripts' defaults
REQUIRED = frozenset({"--pretrained_model_name_or_path", "--instance_prompt"})
"""What both scripts demand, and a command made for this program rarely gives together."""

DEFAULTS: dict[str, tuple[Any, Any]] = {
    "kind": ("lora", "lora"),
    "rank": (4, 4),
    "learning_rate": (5e-4, 1e-4),
    "text_encoder_lr": ("learning_rate", 5e-6),
    "lr_warmup_steps": (500, 500),
    "adam_weight_decay": (1e-2, 1e-4),
    "adam_weight_decay_text_encoder": ("adam_weight_decay", 1e-3),
    "resolution": (512, 1024),
    "train_batch_size": (4, 4),
    "max_train_steps": ("one epoch", "one epoch"),
    "checkpointing_steps": (500, 500),
    "checkpoints_total_limit": (None, None),
    "resume_from_checkpoint": (None, None),
    "validation_steps": ("50 epochs", "50 epochs"),
    "seed": (None, None),
    "report_to": ("tensorboard", "tensorboard"),
    "output_dir": ("lora-dreambooth-model", "lora-dreambooth-model"),
}
"""By setting: the default of the SD 1.5 script, and of the SDXL one, where they are not always ours."""

_SAID_BY = {
    "kind": {"--use_dora", "--use_lora"},
    "max_train_steps": {"--num_train_epochs"},
    "validation_steps": {"--validation_epochs"},
}


def differences(config: TrainConfig, given: frozenset[str]) -> str:
    """What the scripts would have taken for the settings that ``given`` leaves open; "" where that is the same."""
    told = []
    for leaf, dotted in _leaves().items():
        said = {f"--{leaf}", *_SAID_BY.get(leaf, ())} & given
        if leaf not in DEFAULTS or said or not _matters(leaf, config):
            continue
        ours, (sd, sdxl) = value_at(config, dotted), DEFAULTS[leaf]
        if not (_same(ours, sd) and _same(ours, sdxl)):
            told.append(f"{leaf} {_shown(ours)} ({_there(ours, sd, sdxl)})")
    return f"Left open by this command, with other defaults in diffusers' scripts: {'; '.join(told)}." if told else ""


def _there(ours: Any, sd: Any, sdxl: Any) -> str:
    """What is another value there, and for which script."""
    if sd == sdxl:
        return f"there {_shown(sd)}"
    if _same(ours, sd):
        return f"there, for SDXL, {_shown(sdxl)}"
    return f"there {_shown(sd)}, SDXL {_shown(sdxl)}"


def _matters(leaf: str, config: TrainConfig) -> bool:
    """Whether the setting has an effect in this run."""
    if leaf in ("text_encoder_lr", "adam_weight_decay_text_encoder"):
        return config.adapter.train_text_encoder
    return leaf != "validation_steps" or bool(config.run.validation_prompt)


# ------------------------------------------------------------------------------------------------------- values
def _leaves() -> dict[str, str]:
    """Every setting: leaf name to dotted name."""
    return {name.rpartition(".")[2]: name for name, _ in walk(TrainConfig)}


def _with(config: TrainConfig, section: str, **values: Any) -> TrainConfig:
    """The settings with some of one section changed, checked again."""
    before = getattr(config, section)
    return config.model_copy(update={section: type(before)(**{**before.model_dump(), **values})})


def _whole(flag: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"{flag} must be a whole number of at least 1, got {value!r}.")
    return int(value)


def _same(one: Any, other: Any) -> bool:
    """Equal as numbers, or as text."""
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return str(one) == str(other)


def _shown(value: Any) -> str:
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
