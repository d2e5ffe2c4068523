"""Tokenizer, autoencoder, text encoder and UNet of the embedded base: diffusers' and transformers' own classes, sized
to be taught a subject on two CPU cores and shipped inside the package.

Candidates for the UNet (16x16x8 latents, cross-attention at every level; a step is forward and backward through the
frozen network at batch 4 on two cores):

    widths       layers   parameters   fp16      forward an image   step
    128, 192     1        11.3 M       22.6 MB   2.3 GFLOP          115 ms
    160, 192     1        13.2 M       26.4 MB   3.0 GFLOP          119 ms   chosen
    128, 160     2        13.3 M       26.5 MB   3.0 GFLOP          140 ms
    192, 192     1        13.0 M       25.9 MB   3.5 GFLOP          131 ms   without the middle block
    192          2        12.7 M       25.4 MB   5.3 GFLOP          202 ms
    160, 256     1        19.1 M       38.2 MB   3.8 GFLOP          146 ms
    128, 256     2        25.0 M       50.0 MB   4.6 GFLOP          192 ms

The chosen one fills its share of the disk (27 MB) with the cheapest step, so more of an hour goes into samples seen.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dora_diffusion.errors import ModelError
from dora_diffusion.toybox.words import vocabulary

SIZE = 128  # pixels, the side of a picture
FACTOR = 8  # pixels to one latent
LATENT_CHANNELS = 8
MAX_TOKENS = 32
TEXT_WIDTH = 256
HEAD_WIDTH = 32
WORD_DEVIATION = 0.25

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-,.!?'&"
SHARD_SIZE = "14500KB"  # of a weight file: none may be over 15 MB

PARTS = ("vae", "text_encoder", "unet")
TEXT_LEVEL = "text_model."  # of a text encoder's names on disk: transformers 5 dropped it, every reader knows it

TRAIN_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def tokenizer(folder: Path) -> Any:
    """Write a ``CLIPTokenizer`` of the toy world's own vocabulary to ``folder``, and return it.

    Every word of ``words.vocabulary()`` is one token, other text falls into shorter pieces. The folder also gets
    ``vocab.json`` and ``merges.txt``, which older readers want.
    """
    from transformers import CLIPTokenizer

    merges = _merges(vocabulary())
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(pieces), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab, rules = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8")
    rules.write_text("".join(f"{line}\n" for line in ["#version: 0.2", *map(" ".join, merges)]), encoding="utf-8")
    made = CLIPTokenizer(vocab=str(vocab), merges=str(rules), model_max_length=MAX_TOKENS)
    made.save_pretrained(folder)
    return made


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (arXiv:1508.07909), the most frequent pair first, until every word is one piece."""
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        pair = max(counts, key=lambda candidate: (counts[candidate], candidate))
        merges.append(pair)
        spelled = [_merged(pieces, pair) for pieces in spelled]
    return list(dict.fromkeys(merges))


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        # A piece that has just been merged never is a pair's first half again: it is longer than that.
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def autoencoder(
    channels: tuple[int, ...] = (64, 96, 112, 96),
    layers: int = 1,
    latent_channels: int = LATENT_CHANNELS,
    size: int = SIZE,
) -> Any:
    """An ``AutoencoderKL`` with random weights: 3.2 M parameters (6.4 MB as fp16), pictures to latents of an eighth.

    ``channels`` from the picture's side to the latents'; wide where the picture is large, because sharpness is decided
    there and parameters are cheap there. Its scaling factor is 1 until latents have been measured.
    """
    from diffusers import AutoencoderKL

    levels = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=channels,
        layers_per_block=layers,
        latent_channels=latent_channels,
        norm_num_groups=16,
        sample_size=size,
        scaling_factor=1.0,
    )


def text_encoder(vocabulary_size: int, width: int = TEXT_WIDTH, layers: int = 4) -> Any:
    """A ``CLIPTextModel`` with random weights: 3.3 M parameters (6.7 MB as fp16).

    Its words start far apart. CLIP's own start (a deviation of 0.02) lets the layers outgrow them: in a first base the
    stream was a thousand times as long as a word at its end, and a word that training had not met left no trace.
    """
    from torch import nn
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        architectures=["CLIPTextModel"],
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )
    encoder = CLIPTextModel(config)
    nn.init.normal_(encoder.get_input_embeddings().weight, std=WORD_DEVIATION)
    return encoder


def unet(
    channels: tuple[int, ...] = (160, 192),
    layers: int = 1,
    text_width: int = TEXT_WIDTH,
    latent_channels: int = LATENT_CHANNELS,
    size: int = SIZE,
) -> Any:
    """A ``UNet2DConditionModel`` with random weights: 13.2 M parameters (26.4 MB as fp16), attention at every level."""
    from diffusers import UNet2DConditionModel

    levels = len(channels)
    return UNet2DConditionModel(
        sample_size=size // FACTOR,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=text_width,
        # diffusers reads this as the number of heads
        attention_head_dim=tuple(max(1, width // HEAD_WIDTH) for width in channels),
    )


def scheduler() -> Any:
    """Stable Diffusion's noise schedule, velocities predicted, sampled by DDIM."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def pipeline(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> Any:
    """A plain ``StableDiffusionPipeline`` of the four parts."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def half(part: Any) -> Any:
    """A copy of ``part`` as it is shipped: fp16, on the CPU, laid out plainly."""
    return deepcopy(part).cpu().half().to(memory_format=torch.contiguous_format).eval()


def save_part(kind: str, part: Any, folder: Path) -> None:
    """Write one part as fp16 safetensors in diffusers' layout, no file over 15 MB.

    Args:
        kind: "vae", "unet" or "text_encoder".
    """
    shipped = half(part)
    with _rewritten(folder) as fresh:
        if kind == "text_encoder":
            _write_text_encoder(shipped, fresh)
        else:
            shipped.save_pretrained(fresh, safe_serialization=True, max_shard_size=SHARD_SIZE)


def _write_text_encoder(shipped: Any, folder: Path) -> None:
    shipped.config.dtype = "float32"  # what to read it as: diffusers reads its own parts so unless told otherwise
    shipped.config.save_pretrained(folder)
    weights = {f"{TEXT_LEVEL}{name}": value.contiguous() for name, value in shipped.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@contextmanager
def _rewritten(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of ``folder`` once it is whole."""
    fresh = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    for path in fresh.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes for the owner's eyes only
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def load_part(kind: str, folder: Path) -> Any:
    """The part that ``save_part`` wrote, float32, on the CPU; it does not remember where it was read.

    Raises:
        ModelError: its configuration is missing or unreadable, or its weights are damaged or of another architecture.
    """
    try:
        part = _empty(kind, json.loads((folder / "config.json").read_text(encoding="utf-8")))
        files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        part.load_state_dict({name.removeprefix(TEXT_LEVEL): value for file in files for name, value in file.items()})
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"There is no whole {kind} in {folder} ({reason}); run its stage again.") from None
    return part


def _empty(kind: str, config: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    if kind == "text_encoder":
        return CLIPTextModel(CLIPTextConfig.from_dict(config))
    return (AutoencoderKL if kind == "vae" else UNet2DConditionModel).from_config(config)


def save(pipe: Any, folder: Path) -> None:
    """Write the whole pipeline: fp16 weights without a variant, no file over 15 MB, no path of this machine.

    What was in ``folder`` is replaced.
    """
    with _rewritten(folder) as fresh:
        for kind in PARTS:
            save_part(kind, getattr(pipe, kind), fresh / kind)
        pipe.scheduler.save_pretrained(fresh / "scheduler")
        tokenizer(fresh / "tokenizer")  # not the pipeline's own: one that was read from a folder remembers which
        pipe.save_config(fresh)
