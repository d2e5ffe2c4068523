"""Under the prompt: whether the subject is in it, how many tokens it has, and what of it the model will not read."""

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from dora_diffusion.studio.prompts import check_prompt

if TYPE_CHECKING:
    from dora_diffusion.studio.prompts import PromptCheck
    from dora_diffusion.studio.subjects import Subject


def prompt_help(prompt: str, subject: "Subject | None", base: str, others: "Iterable[Subject]" = ()) -> tuple[str, str]:
    """HTML of what is to be said of a prompt, and the label of the button that mends it, "" for nothing to mend."""
    found = check_prompt(prompt, subject, base, others)
    if subject is None or found.mentions:
        mend = ""
    else:
        mend = "Correct it" if found.misspelt or found.stranger else f"Insert {subject.name}"
    return _html(prompt, found, bool(mend or found.stranger)), mend


def _html(prompt: str, found: "PromptCheck", is_lacking: bool) -> str:
    parts = []
    if prompt.strip() and found.hint:
        sign = '<span aria-hidden="true">⚠</span> ' if is_lacking or found.cut else ""
        parts.append(f'<p class="prompt-hint" role="status">{sign}{escape(found.hint)}</p>')
    count = f'<span data-tokens="{found.tokens}">{found.tokens}/{found.limit} tokens</span>'
    sent = f" · sent as: <q>{escape(found.sent)}</q>" if found.sent != " ".join(prompt.split()) else ""
    parts.append(f'<p class="prompt-count">{count}{sent}</p>')
    if found.cut:
        parts.append(f'<p class="prompt-cut">Not read: <del>{escape(found.cut)}</del></p>')
    return "".join(parts)
