"""CLIP's tokenizer from its merges alone, for checkpoints that bring none.

The byte-pair encoding is CLIP's (https://github.com/openai/CLIP, MIT; ``vocabulary/LICENSE``): 256 bytes, the same
ending a word, a token for each of 48894 merges, and two marks: 49408 tokens.
"""

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_MERGES = Path(__file__).parent / "vocabulary" / "clip_merges.txt.gz"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_LENGTH = 77


def clip_tokenizer(pad_token: str) -> Any:
    """A ``CLIPTokenizer`` of 77 tokens a prompt.

    Args:
        pad_token: what fills a prompt up: "<|endoftext|>" in CLIP's own encoder, "!" in OpenCLIP's.
    """
    from transformers import CLIPTokenizer

    merges = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").splitlines()
    settings = {
        "model_max_length": _LENGTH,
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": pad_token,
    }
    # Through files, because transformers 4 and 5 read the same files and take other arguments.
    with TemporaryDirectory() as folder:
        _write(Path(folder) / "vocab.json", json.dumps(_vocabulary(merges)))
        _write(Path(folder) / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
        _write(Path(folder) / "tokenizer_config.json", json.dumps({"tokenizer_class": "CLIPTokenizer", **settings}))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.name_or_path = "clip"  # the folder it was read from is gone
    return tokenizer


def _vocabulary(merges: list[str]) -> dict[str, int]:
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    return {word: number for number, word in enumerate([*words, _START, _END])}


def _byte_letters() -> list[str]:
    """A printable letter for every byte: the byte's own where it has one, else one past 255; in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
