"""The trigger and the prompts mean to the text encoder what the user thinks they do."""

from collections.abc import Iterator
from typing import Any

from dora_diffusion.toybox.words import TRIGGERS, names
from dora_diffusion.training.events import Note
from dora_diffusion.training.preview import validation_prompts
from dora_diffusion.training.sentinels.sentinel import Sentinel

# CLIP's vocabulary is 512 bytes, then merges from the most frequent down: a whole word below this number is an everyday
# one ("cat" is 2368, "backpack" 14 894, "sks" 48 136).
FREQUENT = 10_000
FEW_TOKENS = 3


class Words(Sentinel):
    """A common word brings its own meaning, a word in many pieces is learnt slowly, and what is cut off not at all."""

    def before_run(self) -> None:
        pipe = self.watched.base.pipe
        tokenizers = [pipe.components[name] for name in sorted(pipe.components) if name.startswith("tokenizer")]
        # Two tokenizers of one model cut words in the same places; a note is told once.
        for message in dict.fromkeys(m for tokenizer in tokenizers if tokenizer for m in self._findings(tokenizer)):
            self.watched.tell(Note(message))

    def _findings(self, tokenizer: Any) -> Iterator[str]:
        base = self.watched.base
        if base.word is None:  # else the trigger is no word of the base's
            yield from trigger_findings(tokenizer, self.watched.config.data.trigger)
        for prompt in dict.fromkeys(self._prompts()):
            yield from prompt_findings(tokenizer, base.pipe.maybe_convert_prompt(base.marked(prompt), tokenizer))

    def _prompts(self) -> Iterator[str]:
        config = self.watched.config
        yield from self.watched.batches.fixed_captions()
        if config.prior.with_prior_preservation:
            yield config.class_prompt()
        yield from validation_prompts(config)


def trigger_findings(tokenizer: Any, trigger: str) -> Iterator[str]:
    """What speaks against a trigger."""
    tokens = tokenizer.tokenize(trigger)
    if not tokens or tokenizer.unk_token in tokens:
        yield f"The tokenizer does not know the trigger {trigger!r}; choose another, such as sks."
    elif len(tokens) > FEW_TOKENS:
        yield (
            f"The trigger {trigger!r} is {len(tokens)} tokens to the text encoder; a rare word of one to {FEW_TOKENS}, "
            "such as sks, is learnt faster and leaves room for the rest of the prompt."
        )
    elif all(_is_common(tokenizer, token) for token in tokens):
        yield (
            f"The trigger {trigger!r} is a common word to the base: it brings its own meaning, and is changed wherever "
            "else it stands. Choose a rare one, such as sks."
        )


def prompt_findings(tokenizer: Any, prompt: str) -> Iterator[str]:
    """What of a prompt is lost."""
    room = tokenizer.model_max_length - 2  # start and end
    tokens = tokenizer.tokenize(prompt)
    if len(tokens) > room:
        lost = "".join(tokens[room:]).replace("</w>", " ").strip()
        yield f"A prompt is longer than the text encoder's {room} tokens and is cut; lost is: {lost!r}."


def _is_common(tokenizer: Any, token: str) -> bool:
    """Whether a token is a whole word that the base met often.

    A small vocabulary has only words that the base was made of, save those that toybox keeps free of a meaning.
    """
    word = token.removesuffix("</w>")
    if word == token or len(word) == 1:
        return False
    if len(tokenizer) < FREQUENT:
        return word not in TRIGGERS and word not in names()
    return int(tokenizer.convert_tokens_to_ids(token)) < FREQUENT
