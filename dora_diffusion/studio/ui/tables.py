"""Tables of our own HTML: a scope for every header; on a phone each row is a card whose cells say what they are."""

import re
from collections.abc import Sequence
from html import escape
from itertools import cycle

_CELL = re.compile(r"<t[dh](?=[ >])")


def table(elem_id: str, name: str, headers: Sequence[str], rows: str) -> str:
    """HTML of a table called ``name`` with a row of headers over ``rows``, which are HTML already, a cell a header."""
    head = "".join(f'<th scope="col">{header}</th>' for header in headers)
    labels = cycle(headers)
    labelled = _CELL.sub(lambda cell: f'{cell[0]} data-label="{escape(next(labels))}"', rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table class="plain" id="{elem_id}">'
        f"<thead><tr>{head}</tr></thead><tbody>{labelled}</tbody></table></div>"
    )
