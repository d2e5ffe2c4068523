"""A word of its own for a subject: new tokens in the tokenizers, their vectors beside the frozen embedding.

Textual inversion (arXiv:2208.01618) learns such vectors alone; learnt beside an adapter it is called pivotal tuning
(after arXiv:2106.05744). Names are diffusers': a word of two tokens is ``<sks>`` and ``<sks>_1`` in a tokenizer, and
``<sks>`` in a prompt stands for both (``TextualInversionLoaderMixin.maybe_convert_prompt``).
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dora_diffusion.errors import ModelError

OLD_END = 2  # what CLIP configurations of before 2023 call their end token, whatever it is
NOISE = 0.1  # of several vectors from one start: keeps them apart, as a share of the embedding's own spread


@dataclass(frozen=True)
class Word:
    """A trigger and where its vectors are, by component ("text_encoder", "text_encoder_2").

    ``plain`` has what stood there before: (tokenizer, embedding) by component.
    """

    trigger: str
    embeddings: Mapping[str, "TokenEmbedding"]
    plain: Mapping[str, tuple[Any, nn.Embedding]]

    def marked(self, prompt: str) -> str:
        """``prompt`` as the tokenizers know it."""
        return mark(self.trigger, prompt)


class TokenEmbedding(nn.Embedding):
    """A frozen embedding that knows further tokens, numbered from ``first``.

    Args:
        frozen: what is there; its weight is shared, its names in a state stay.
        first: number of the first new token.
        rows: (n, dim) float32, theirs. Read at every forward, so that an adapter may put its own parameter there; not
            a part of the module, because a cast of the text encoder must not cast what is trained.
    """

    def __init__(self, frozen: nn.Embedding, first: int, rows: Tensor):
        super().__init__(frozen.num_embeddings, frozen.embedding_dim, _weight=frozen.weight, _freeze=True)
        self.weight = frozen.weight
        self.first = first
        self.rows = rows

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rows":  # also where it is a parameter, which nn.Module would register
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, input: Tensor) -> Tensor:
        """Vectors (b, tokens, dim) of token numbers (b, tokens), in the frozen embedding's precision."""
        known = F.embedding(input.clamp(max=self.num_embeddings - 1), self.weight)
        place = input - self.first
        new = F.embedding(place.clamp(0, len(self.rows) - 1), self.rows.to(input.device))
        is_new = (place >= 0) & (place < len(self.rows))
        return torch.where(is_new[..., None], new.to(known.dtype), known)


def mark(trigger: str, prompt: str) -> str:
    """``prompt`` with the trigger, wherever it stands as a word, as a new token: ``<sks>``."""
    bare = re.escape(bare_trigger(trigger))
    token = token_names(trigger, 1)[0]
    return re.sub(rf"<{bare}>|(?<![\w<]){bare}(?![\w>])", lambda _: token, prompt, flags=re.IGNORECASE)


def bare_trigger(trigger: str) -> str:
    """The word as CLIP's tokenizers read it: in small letters, without marks around it."""
    return trigger.strip("<>").lower()


def token_names(trigger: str, count: int) -> list[str]:
    """What the tokens of a word are called."""
    first = f"<{bare_trigger(trigger)}>"
    return [first, *(f"{first}_{k}" for k in range(1, count))]


def start_rows(pipe: Any, components: list[str], text: str, count: int, seed: int) -> dict[str, Tensor]:
    """Vectors for a new word to start from: (count, dim) float32 by component.

    Each is the mean of what the embedding has for ``text``; several get a little noise of their own besides, drawn from
    ``seed``, or they would learn the same.

    Raises:
        ModelError: the tokenizer makes nothing of ``text``.
    """
    rows = {}
    for component in components:
        weight = getattr(pipe, component).get_input_embeddings().weight.detach()
        numbers = getattr(pipe, tokenizer_of(component))(text, add_special_tokens=False).input_ids
        if not numbers:
            raise ModelError(f"The tokenizer makes nothing of {text!r}; give --new_tokens_init a word it knows.")
        start = weight[torch.tensor(numbers, device=weight.device)].float().mean(0).cpu()
        draw = torch.Generator().manual_seed(_seed_of(component, seed))
        noise = torch.randn(count, len(start), generator=draw) * (NOISE * float(weight.float().std()))
        rows[component] = start + noise if count > 1 else start[None].clone()
    return rows


def add_word(pipe: Any, trigger: str, rows: Mapping[str, Tensor]) -> Word:
    """Teach ``pipe`` a word; its tokenizers are replaced by copies that know it.

    Args:
        rows: (n, dim) by component.

    Raises:
        ModelError: a text encoder is missing or of another width, or the tokenizer has the word's tokens already.
    """
    embeddings, plain = {}, {}
    for component, values in rows.items():
        encoder, frozen = _encoder(pipe, component, values)
        known = getattr(pipe, tokenizer_of(component))
        tokenizer = deepcopy(known)
        names = token_names(trigger, len(values))
        if tokenizer.add_tokens(names) != len(names):
            raise ModelError(
                f"The base's tokenizer has a token called {names[0]} already, so {trigger!r} cannot be learnt as a new "
                "word. Choose another --trigger."
            )
        first = tokenizer.convert_tokens_to_ids(names[0])
        _read_the_end_by_its_number(encoder, tokenizer.eos_token_id)
        embeddings[component] = TokenEmbedding(frozen, first, values)
        plain[component] = known, frozen
        encoder.set_input_embeddings(embeddings[component])
        setattr(pipe, tokenizer_of(component), tokenizer)
    return Word(trigger, embeddings, plain)


def remove_word(pipe: Any, word: Word) -> None:
    """Put back what was there before the word."""
    for component, (tokenizer, embedding) in word.plain.items():
        getattr(pipe, component).set_input_embeddings(embedding)
        setattr(pipe, tokenizer_of(component), tokenizer)


def write_out_word(pipe: Any, word: Word) -> None:
    """Make the word's vectors rows of plain embeddings: ``save_pretrained`` writes them and any reader loads them."""
    for component, embedding in word.embeddings.items():
        encoder, first = getattr(pipe, component), embedding.first
        rows = embedding.rows.detach().to(embedding.weight)
        weight = torch.cat([embedding.weight[:first], rows, embedding.weight[first + len(rows) :]])
        encoder.set_input_embeddings(nn.Embedding.from_pretrained(weight))
        encoder.config.vocab_size = len(weight)


def tokenizer_of(component: str) -> str:
    """The tokenizer that goes with a text encoder: "tokenizer_2" with "text_encoder_2"."""
    return component.replace("text_encoder", "tokenizer")


def _encoder(pipe: Any, component: str, values: Tensor) -> tuple[Any, nn.Embedding]:
    encoder = getattr(pipe, component, None)
    if encoder is None:
        raise ModelError(f"The adapter has a word for {component}, which this base has not. Use the base it was for.")
    frozen = encoder.get_input_embeddings()
    if values.shape[1] != frozen.embedding_dim:
        raise ModelError(
            f"The adapter's word has {values.shape[1]} numbers a token and {component} of this base has "
            f"{frozen.embedding_dim}. Use the base it was trained on."
        )
    return encoder, frozen


def _read_the_end_by_its_number(encoder: Any, number: int) -> None:
    """Old configurations make transformers take the highest token for the prompt's end; new ones lie above that."""
    for part in (encoder.config, *encoder.modules()):
        if getattr(part, "eos_token_id", None) == OLD_END:
            part.eos_token_id = number


def _seed_of(component: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}:word:{component}".encode(), digest_size=7).digest(), "little")
