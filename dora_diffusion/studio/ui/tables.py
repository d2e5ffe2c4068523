"""Tables of our own HTML: a scope for every header, and a frame that scrolls on a phone instead of the page."""

from collections.abc import Sequence


def table(elem_id: str, name: str, headers: Sequence[str], rows: str) -> str:
    """HTML of a table called ``name`` with a row of headers over ``rows``, which are HTML already."""
    head = "".join(f'<th scope="col">{header}</th>' for header in headers)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table class="plain" id="{elem_id}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
