"""From a subject, a quality and a few changes to the settings of a run."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.config.files import build
from dora_diffusion.config.presets import lay_over, layer_names, preset
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import did_you_mean
from dora_diffusion.studio.slots import gpus
from dora_diffusion.studio.subjects import Subject

TOYBOX = "toybox"
QUALITIES = ("quick", "balanced", "best")
MOMENTS = 6  # previews and checkpoints of a run

PROMPTS = (
    "a photo of {trigger} {class}",
    "a photo of {trigger} {class} on the beach",
    "a photo of {trigger} {class} in the snow",
)
# What the studio decides itself, or what would read, write or send something elsewhere.
KEPT = frozenset(
    {
        "preset",
        "model.pretrained_model_name_or_path",
        "model.pretrained_vae_model_name_or_path",
        "model.revision",
        "model.variant",
        "model.allow_pickle",
        "data.instance_data_dir",
        "data.mask_data_dir",
        "data.trigger",
        "data.class_noun",
        "prior.class_data_dir",
        "run.output_dir",
        "run.overwrite",
        "run.plan_only",
        "run.resume_from_checkpoint",
        "run.report_to",
        "run.logging_dir",
        "run.push_to_hub",
        "run.hub_model_id",
        "run.checkpoints_total_limit",
    }
)
_BASES = {"sd1": "sd15", "sd2": "sd21", "sdxl": "sdxl"}  # family to the presets' word
_STEPS = {"quick": 0.5, "balanced": 1.0, "best": 2.0}
_PEOPLE = {"person", "man", "woman", "boy", "girl", "child", "baby", "face", "guy", "lady", "human", "portrait"}
_PETS = {"dog", "cat", "pet", "puppy", "kitten", "horse", "pony", "rabbit", "hamster", "parrot", "bird", "animal"}


class JobSettings:
    """Makes the settings of runs.

    Args:
        family_of: the family of a base that is not toybox: "sd1", "sd2", "sdxl".
        size_of: side in pixels of the pictures that a base is trained with.
    """

    def __init__(self, family_of: Callable[[str], str], size_of: Callable[[str], int]):
        self._family_of, self._size_of = family_of, size_of

    def qualities(self, base: str) -> dict[str, str]:
        """What can be chosen for a base: name to one line about it."""
        if base == TOYBOX:
            words = ("a first impression", "a good likeness", "the closest likeness")
        else:
            words = ("half of the usual steps", "the usual steps", "twice the usual steps")
        return {
            quality: f"{self._steps(base, quality, 'object')} steps: {said}"
            for quality, said in zip(QUALITIES, words, strict=True)
        }

    def resolution(self, config: TrainConfig) -> int:
        """Side in pixels of the pictures that a run is trained with: its own, else its base's."""
        return config.data.resolution or self._size_of(config.model.pretrained_model_name_or_path)

    def build(self, subject: Subject, quality: str, overrides: Mapping[str, Any], folder: Path) -> TrainConfig:
        """The settings of a run in ``folder``, a job's.

        Raises:
            ConfigError: the quality or a setting is unknown, or out of range.
        """
        if quality not in QUALITIES:
            raise ConfigError(
                f"Unknown quality {str(quality)[:40]!r}; known: {', '.join(QUALITIES)}."
                f"{did_you_mean(str(quality), list(QUALITIES))}"
            )
        content = lay_over(self._own(subject, quality, folder), nested(overrides))
        steps = content["run"]["max_train_steps"]
        if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0:
            every = math.ceil(steps / MOMENTS)
            content["run"] = {"checkpointing_steps": every, "validation_steps": every, **content["run"]}
        config = build(TrainConfig, content, "")
        _check_prompts(config)
        return config

    def _own(self, subject: Subject, quality: str, folder: Path) -> dict[str, Any]:
        """What the studio decides."""
        return {
            "preset": self._preset(subject.base, quality, _kind(subject.class_noun)),
            "model": {"pretrained_model_name_or_path": subject.base},
            "data": {
                "instance_data_dir": folder / "photos",
                "trigger": subject.trigger,
                "class_noun": subject.class_noun,
            },
            "run": {
                "output_dir": folder / "run",
                "max_train_steps": self._steps(subject.base, quality, _kind(subject.class_noun)),
                "checkpoints_total_limit": MOMENTS,
                "validation_prompt": list(PROMPTS),
                "num_validation_images": 1,
            },
        }

    def _preset(self, base: str, quality: str, kind: str) -> str:
        if base == TOYBOX:
            return f"toybox-{quality}"
        return f"{_BASES.get(self._family_of(base), 'sd15')}-{kind}-{_memory()}"

    def _steps(self, base: str, quality: str, kind: str) -> int:
        steps: int = preset(self._preset(base, quality, kind))["run"]["max_train_steps"]
        return steps if base == TOYBOX else round(steps * _STEPS[quality])


def short(quality: str, config: TrainConfig, overrides: Mapping[str, Any]) -> str:
    """Settings in short words: "balanced, 300 steps, rank 8"."""
    changes = [
        f"{name.rpartition('.')[2].replace('_', ' ')} {value_at(config, name)}"
        for name in overrides
        if name not in ("run.max_train_steps", "run.validation_prompt")
    ]
    return ", ".join([quality, f"{config.run.max_train_steps} steps", *changes])


def nested(overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Changes by section.

    Raises:
        ConfigError: a name is none, or one that the studio decides.
    """
    known = {name for name, _ in walk(TrainConfig)}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in overrides.items():
        if name not in known:
            raise ConfigError(f"Unknown setting {str(name)[:60]!r}.{did_you_mean(str(name), sorted(known))}")
        if name in KEPT:
            raise ConfigError(f"{name} is decided by the studio, and cannot be changed there.")
        section, _, leaf = name.partition(".")
        sections.setdefault(section, {})[leaf] = value
    return sections


def _check_prompts(config: TrainConfig) -> None:
    """Raises: ConfigError: a preview would not show the subject."""
    for prompt in config.run.validation_prompt:
        if "{trigger}" not in prompt and config.data.trigger not in prompt.split():
            raise ConfigError(
                f"A preview's prompt must name the subject by {{trigger}} or {config.data.trigger!r}, got {prompt!r}."
            )


def _kind(class_noun: str) -> str:
    """The presets' word for what the subject is."""
    words = set(class_noun.lower().split())
    if words & _PEOPLE:
        return "person"
    return "pet" if words & _PETS else "object"


def _memory() -> str:
    """The presets' word for the memory of the smallest GPU here."""
    room = min((gpu.gib for gpu in gpus()), default=0.0)
    names = layer_names("memory")
    # A GPU sold as one of 12 GB says a bit less than 12 GiB.
    fitting = [name for name in names if float(name.removesuffix("gb")) * 0.92 <= room]
    return fitting[-1] if fitting else names[0]
