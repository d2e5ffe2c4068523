"""A learnt word in an adapter's file: the vectors of the trigger's own tokens, beside the layers.

    dora_diffusion.lora_tokens.<text encoder>        (n, dim): in diffusers' form; the trigger stands in the header
    bundle_emb.<trigger>.string_to_param.*           (n, dim): as OneTrainer writes it, SD 1.x and 2.x; read only
    bundle_emb.<trigger>.clip_l, .clip_g             (n, dim): the same, SDXL

diffusers reads a file only if "lora" is in every key, and passes over the tokens, which ``pipe.load_textual_inversion``
takes. A1111 alone finds a bundle in a LoRA's file, and diffusers refuses the file for it: so files under kohya's names
have none, and the word lies beside them as an embedding, which A1111, ComfyUI and Forge all take:

    emb_params                                       (n, dim): the file of SD 1.x and 2.x
    clip_l, clip_g                                   (n, dim): SDXL's
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dora_diffusion.adapters import AdapterState, NewWord
from dora_diffusion.errors import ConfigError, FormatError
from dora_diffusion.formats.files import read_safetensors, write_safetensors
from dora_diffusion.formats.header import PREFIX

logger = logging.getLogger(__name__)

OWN = f"{PREFIX}lora_tokens."
_CLIP = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


NEW_TOKENS = "new_tokens"  # in the header: how many the trigger had, wherever they are


def own_tensors(state: AdapterState) -> dict[str, Tensor]:
    """The word's vectors under keys that diffusers' reader lets pass; nothing without a word."""
    return {} if state.word is None else {f"{OWN}{component}": rows for component, rows in state.word.rows.items()}


def write_embedding(word: NewWord, path: Path) -> Path:
    """The word alone, in a folder ``embeddings`` beside the adapter at ``path``.

    A1111, ComfyUI and Forge each have a folder of that name, and call an embedding by its file's name: the trigger.

    Raises:
        ConfigError: a file of that name is there and is no such embedding.
        MachineError: the disk.
    """
    file = path.parent / "embeddings" / f"{word.trigger.strip('<>')}.safetensors"
    if file.exists() and not set(read_safetensors(file)[0]) <= {"emb_params", *_CLIP.values()}:
        raise ConfigError(f"{file} is there and is no embedding of a word; give another --output.")
    write_safetensors(file, _by_clip(word, "emb_params"), {f"{PREFIX}trigger": word.trigger})
    return file


def lay_beside(word: NewWord, path: Path, *, is_inside: bool) -> None:
    """``write_embedding`` for the programs that take words that way, and a line on where it is.

    Args:
        is_inside: whether the file at ``path`` holds the word too.
    """
    file = write_embedding(word, path)
    logger.warning(
        "The new tokens of the trigger %r are %s in %s, for the embeddings folder of ComfyUI, A1111 or Forge.",
        word.trigger,
        "also" if is_inside else f"not in {path.name}: they are",
        file,
    )


def _by_clip(word: NewWord, single: str) -> dict[str, Tensor]:
    """The vectors by SDXL's names of its encoders; where there is one encoder, under ``single``."""
    if len(word.rows) == 1:
        (rows,) = word.rows.values()
        return {single: rows}
    return {_CLIP[component]: rows for component, rows in word.rows.items()}


def word_of(key: str) -> tuple[str, str] | None:
    """(trigger, text encoder) of a learnt word's rows; None for a layer's key. No trigger: the header says it."""
    if key.startswith(OWN):
        return "", key.removeprefix(OWN)
    match = re.fullmatch(r"bundle_emb\.(.+?)\.(string_to_param\.)?(\*|clip_l|clip_g)", key)
    return None if match is None else (match[1], "text_encoder_2" if match[3] == "clip_g" else "text_encoder")


def take_word(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]
) -> tuple[NewWord | None, dict[str, Tensor]]:
    """The word in a file, and the tensors that are left.

    Raises:
        FormatError: it is not whole, or there are several.
    """
    if (count := header.get(f"{PREFIX}{NEW_TOKENS}")) and not any(word_of(key) for key in tensors):
        logger.warning(
            "The trigger %r of %s had %s new tokens of its own, which are not in this file: without them it means "
            "something else. Use the run's own file, or the format diffusers.",
            header.get(f"{PREFIX}trigger", ""),
            path,
            count,
        )
    found = {key: word for key in tensors if (word := word_of(key)) is not None}
    left = {key: value for key, value in tensors.items() if key not in found}
    if not found:
        return None, left
    triggers = {trigger or header.get(f"{PREFIX}trigger", "") for trigger, _ in found.values()}
    if len(triggers) > 1:
        raise FormatError(f"{path} has the vectors of several words ({', '.join(sorted(triggers))}); one is read.")
    if triggers == {""}:
        raise FormatError(f"{path} has vectors of new tokens and does not say what word they are: its header lost it.")
    rows = {component: tensors[key].float() for key, (_, component) in found.items()}
    if any(value.ndim != 2 or not len(value) for value in rows.values()) or len({len(v) for v in rows.values()}) > 1:
        shapes = {component: list(value.shape) for component, value in rows.items()}
        raise FormatError(
            f"{path} has vectors of new tokens of shapes {shapes}; as many for every text encoder belong."
        )
    return NewWord(triggers.pop(), rows), left
