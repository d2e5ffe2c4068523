"""What an adapter was taught: its subject's words, class and photos, from its file and its run's folder."""

from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.adapters import AdapterState
from dora_diffusion.config import EvaluateConfig, TrainConfig
from dora_diffusion.config.files import load_yaml
from dora_diffusion.data.photos import list_photos
from dora_diffusion.errors import ConfigError, ModelError
from dora_diffusion.formats import SETTINGS_NAME, load_adapter
from dora_diffusion.models import resolve
from dora_diffusion.registry import did_you_mean
from dora_diffusion.toybox.words import CLASSES, STYLES


@dataclass(frozen=True)
class Taught:
    """One subject.

    Args:
        words: what it is called in a prompt, "sks mug".
        kind: its class, one the eye knows.
        photos, held_out: files, ``held_out`` perhaps empty.
    """

    adapter: Path
    words: str
    kind: str
    photos: tuple[Path, ...]
    held_out: tuple[Path, ...]


def taught(config: EvaluateConfig) -> Taught:
    """The subject of ``config.adapter``, with everything checked that can be before a model is loaded.

    Raises:
        ConfigError: no adapter was given, it was made for another base, or for a class that the eye does not know.
        FormatError, DataError: adapter or photos cannot be read.
    """
    if config.adapter is None:
        raise ConfigError("Which adapter? Give --adapter with a run folder or an adapter file.")
    state = load_adapter(config.adapter)
    run = _run_settings(config.adapter)
    _check_base(state)
    kind = _kind(config, state, run)
    return Taught(
        config.adapter,
        subject_words(state, kind),
        kind,
        tuple(list_photos(_photo_folder(config, run))),
        tuple(list_photos(config.held_out_data_dir)) if config.held_out_data_dir else (),
    )


def subject_words(state: AdapterState, kind: str) -> str:
    """The subject as its training prompt named it ("sks mug" of "a photo of sks mug"), else "sks" and the class."""
    prompt = state.metadata.get("instance_prompt", "")
    for start in STYLES["photo"]:
        prompt = prompt.removeprefix(f"{start} ")
    return prompt.strip() or f"{state.metadata.get('trigger') or 'sks'} {kind}"


def _run_settings(adapter: Path) -> TrainConfig | None:
    path = (adapter if adapter.is_dir() else adapter.parent) / SETTINGS_NAME
    return load_yaml(TrainConfig, path) if path.is_file() else None


def _check_base(state: AdapterState) -> None:
    name = state.base_name or "toybox"  # a foreign file says none; whether it fits is found on loading
    if name == "toybox":
        return
    try:
        same = Path(name).exists() and Path(name).resolve() == Path(resolve("toybox")).resolve()
    except ModelError:
        same = False
    if not same:
        raise ConfigError(
            f"The adapter was trained on {name}, and only adapters of the embedded base 'toybox' can be evaluated: "
            "the eye that judges them knows nothing but the toy world."
        )


def _kind(config: EvaluateConfig, state: AdapterState, run: TrainConfig | None) -> str:
    noun = config.class_noun or state.metadata.get("class_noun") or (run.data.class_noun if run else None) or ""
    if noun in CLASSES:
        return noun
    if not noun:
        raise ConfigError(
            "The adapter does not say what class its subject is, and evaluation measures against that class. "
            "Give --class_noun (for example: --class_noun mug)."
        )
    raise ConfigError(
        f"The eye that judges pictures does not know the class {noun!r}; it knows the {len(CLASSES)} of the toy world: "
        f"{', '.join(CLASSES)}.{did_you_mean(noun, list(CLASSES))}"
    )


def _photo_folder(config: EvaluateConfig, run: TrainConfig | None) -> Path:
    if config.instance_data_dir is not None:
        return config.instance_data_dir
    folder = run.data.instance_data_dir if run else None
    if folder is None:
        raise ConfigError("Which photos was it taught with? Give --instance_data_dir with their folder.")
    if not folder.is_dir():
        raise ConfigError(
            f"The run was taught with the photos in {folder}, which is no folder here. "
            "Give --instance_data_dir with the folder that holds them now."
        )
    return folder
