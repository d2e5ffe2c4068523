"""Help with prompts: is the subject in it, is its trigger misspelt, and does it fit into what the base reads?"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dora_diffusion.studio.tokens import tokenizer_of

_FAR = 2  # letters, up to which a word counts as the trigger misspelt
_SHORT = 4  # letters, up to which a trigger is too near to other words
# Where a subject's words go: after these openings, else in front.
_OPENING = re.compile(r"^((?:an?|the)\s+[\w ]*?\b(?:photo|picture|painting|drawing|image|sketch)\w*\s+of)\s+", re.I)


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
        stranger: the name of another subject that stands in it as ``<name>``; mostly empty.
        hint: all of that in a sentence, or empty.
    """

    mentions: bool
    misspelt: str
    sent: str
    tokens: int
    limit: int
    cut: str
    stranger: str
    hint: str


def check_prompt(prompt: str, subject: Named | None, base: str = "toybox", others: Iterable[Named] = ()) -> PromptCheck:
    """What is to be said of a prompt while it is being typed.

    Args:
        others: the subjects that are not chosen.
    """
    sent = written_out(prompt, subject)
    mentions = subject is None or mentioned(prompt, subject)
    misspelt = "" if mentions or subject is None else misspelt_trigger(prompt, subject)
    tokenizer = tokenizer_of(base)
    cut = tokenizer.cut(sent)
    stranger = next((other.name for other in others if _in_brackets(other.name, sent)), "")
    return PromptCheck(
        mentions,
        misspelt,
        sent,
        tokenizer.count(sent),
        tokenizer.length,
        cut,
        stranger,
        _hint(subject, prompt, mentions, misspelt, cut, stranger),
    )


def inserted(prompt: str, subject: Named) -> str:
    """``prompt`` with the subject in it: a misspelt trigger is mended, else the words are put where they read best."""
    if mentioned(prompt, subject):
        return prompt
    misspelt = misspelt_trigger(prompt, subject)
    if misspelt:
        return re.sub(_whole(re.escape(misspelt)), lambda _: subject.trigger, prompt, count=1)
    words, noun = _words(subject), re.escape(subject.class_noun.strip())
    name = _whole(r"\s+".join(map(re.escape, subject.name.split())))
    if subject.name.strip() and re.search(name, prompt, re.I):
        return re.sub(name, lambda _: words, prompt, count=1, flags=re.I)
    # "a photo of a teapot" means the subject; "a photo of sks teapot" is how it was taught.
    with_noun = rf"(?:(?<!\w)(?:an?|the|my)\s+)?{_whole(noun)}"
    if noun and re.search(with_noun, prompt, re.I):
        return re.sub(with_noun, lambda _: words, prompt, count=1, flags=re.I)
    opening = _OPENING.match(prompt)
    if opening:
        return f"{opening[1]} {words}, {prompt[opening.end() :]}".rstrip(", ")
    text = prompt.strip()
    return f"a photo of {words}{' ' if _is_place(text) else ', '}{text}" if text else f"a photo of {words}"


def renamed(prompt: str, subject: Named, others: Iterable[Named]) -> str:
    """``prompt`` about ``subject``, where it was about one of the others, by its ``<name>`` or trigger and noun."""
    for other in others:
        if other.name.strip():
            prompt = _bracketed(other.name).sub(lambda _: f"<{subject.name}>", prompt)
        words = _words(other)
        if words.lower() != _words(subject).lower() and other.class_noun.strip():
            spaced = r"\s+".join(map(re.escape, words.split()))
            prompt = re.sub(_whole(spaced), lambda _: _words(subject), prompt, flags=re.I)
    return prompt


def written_out(prompt: str, subject: Named | None) -> str:
    """``prompt`` with ``<name>``, or ``<class noun>``, replaced by trigger and class noun."""
    if subject is None:
        return prompt
    for called in filter(str.strip, (subject.name, subject.class_noun)):
        prompt = _bracketed(called).sub(lambda _: _words(subject), prompt)
    return prompt


def mentioned(prompt: str, subject: Named) -> bool:
    """Whether the trigger, or ``<name>``, is in the prompt."""
    bare = subject.trigger.strip("<>")
    sent = written_out(prompt, subject)
    return sent != prompt or re.search(_whole(re.escape(bare)), sent, re.I) is not None


def misspelt_trigger(prompt: str, subject: Named) -> str:
    """The first word that is the trigger but for one or two letters; empty where there is none.

    Beside a short trigger many words are that ("sky", "ski" for "sks"): there it must stand before the class noun.
    """
    bare = subject.trigger.strip("<>").lower()
    far = _FAR if len(bare) > _SHORT else 1
    noun = subject.class_noun.lower().split()
    words = re.findall(r"[^\W_]+", prompt)
    for at, word in enumerate(words):
        near = word.lower()
        is_placed = len(bare) > _SHORT or (noun and [w.lower() for w in words[at + 1 :][: len(noun)]] == noun)
        if bare and near != bare and is_placed and near not in noun and _is_near(near, bare, far):
            return str(word)
    return ""


def distance(one: str, other: str) -> int:
    """How many letters must be put in, taken out or changed to make one word the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != wanted))
    return row[-1]


def _is_near(word: str, trigger: str, far: int) -> bool:
    if not word.isalpha() or abs(len(word) - len(trigger)) > far:
        return False
    swapped = sorted(word) == sorted(trigger)  # "kss" for "sks": one slip of the fingers, two changes
    return distance(word, trigger) <= (_FAR if swapped else far)


def _words(subject: Named) -> str:
    return f"{subject.trigger} {subject.class_noun}".strip()


def _bracketed(name: str) -> re.Pattern[str]:
    """Finds ``<name>``."""
    spaced = r"\s+".join(map(re.escape, name.split()))
    return re.compile(rf"<\s*{spaced}\s*>", re.I)


def _in_brackets(name: str, prompt: str) -> bool:
    return bool(name.strip()) and _bracketed(name).search(prompt) is not None


def _whole(pattern: str) -> str:
    return rf"(?<!\w){pattern}(?!\w)"


def _is_place(text: str) -> bool:
    return text.split(" ")[0].lower() in {"in", "on", "at", "under", "beside", "near", "by", "with", "behind", "among"}


def _hint(subject: Named | None, prompt: str, mentions: bool, misspelt: str, cut: str, stranger: str) -> str:
    said = []
    if stranger:
        said.append(f"<{stranger}> is another subject.")
    if subject is not None and misspelt:
        said.append(f"“{misspelt}” is nearly “{subject.trigger}”: is {subject.name} meant?")
    elif subject is not None and not mentions and prompt.strip():
        said.append(f"Your prompt does not mention {subject.name} (“{_words(subject)}”).")
    if cut:
        said.append(f"The prompt is too long: “{cut}” is not read.")
    return " ".join(said)
