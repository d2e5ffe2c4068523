"""Nothing is fetched from the net because a request names it.

Gradio fetches an address where a file is expected: in the values of any event ({"path": "http://…"}), and behind
/gradio_api/file=. It asks the names' addresses of a public resolver besides. Both go through the package safehttpx.
"""

from typing import Any, NoReturn

import gradio as gr
import safehttpx

FETCHED = ("get", "async_validate_url")  # what Gradio calls of it


def fetch_nothing() -> None:
    """Make Gradio refuse addresses in this process, with plain words.

    Raises:
        AttributeError: another safehttpx than this was written for; better no page than one that fetches.
    """
    for name in FETCHED:
        getattr(safehttpx, name)
        setattr(safehttpx, name, _refuse)


async def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise gr.Error("The studio fetches nothing from the net. Download the file, and upload it.", print_exception=False)
