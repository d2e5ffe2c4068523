"""Help with prompts: is the subject in it, is its trigger misspelt, and does it fit into the base's 77 tokens?"""

from dataclasses import dataclass
from typing import Protocol


class Named(Protocol):
    """What a prompt calls a subject."""

    @property
    def name(self) -> str: ...

    @property
    def class_noun(self) -> str: ...

    @property
    def trigger(self) -> str: ...


@dataclass(frozen=True)
class PromptCheck:
    """What was found about a prompt.

    Args:
        mentions: the subject is in it, by its trigger or as ``<name>``; True where there is no subject.
        misspelt: the word that is nearly the trigger, where it is not mentioned; else empty.
        sent: the prompt as the model gets it.
        tokens: how many of it the base's tokenizer makes, the two marks around it included.
        limit: how many it reads.
        cut: the end of the prompt that it will not read; mostly empty.
        hint: all of that in a sentence, or empty.
    """

    mentions: bool
    misspelt: str
    sent: str
    tokens: int
    limit: int
    cut: str
    hint: str


def check_prompt(prompt: str, subject: Named | None, base: str = "toybox") -> PromptCheck:
    """What is to be said of a prompt while it is being typed."""
    raise NotImplementedError


def inserted(prompt: str, subject: Named) -> str:
    """``prompt`` with the subject in it: a misspelt trigger is mended, else the words are put where they read best."""
    raise NotImplementedError


def written_out(prompt: str, subject: Named | None) -> str:
    """``prompt`` with ``<name>`` replaced by trigger and class noun."""
    raise NotImplementedError
