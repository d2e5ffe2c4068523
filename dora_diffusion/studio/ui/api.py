"""The studio for programs: what the page can do, as typed endpoints for ``gradio_client`` and MCP.

A method of a class in ``endpoints/`` is an endpoint: its hints are the types that clients are shown, its docstring is
their documentation (a line an argument: Gradio reads no second one), and the service checks what they send. Errors
come as plain words (``gradio_client`` raises AppError).
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from dora_diffusion.studio.ui.endpoints.bases import BaseEndpoints
from dora_diffusion.studio.ui.endpoints.boundary import endpoint
from dora_diffusion.studio.ui.endpoints.making import MakingEndpoints
from dora_diffusion.studio.ui.endpoints.subjects import SubjectEndpoints
from dora_diffusion.studio.ui.endpoints.trainings import TrainingEndpoints
from dora_diffusion.studio.ui.shared import WORK

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio

GROUPS = (SubjectEndpoints, TrainingEndpoints, MakingEndpoints, BaseEndpoints)
# Answers come at once, however many wait for pictures: no queue for plain HTTP and MCP, no limit for gradio_client,
# which takes the queue always.
AT_ONCE: dict[str, Any] = {"queue": False, "concurrency_limit": None}
# In one line with what the page draws.
IN_LINE: dict[str, Any] = {name: WORK[name] for name in ("concurrency_id", "concurrency_limit")}


def build_api(studio: "Studio") -> None:
    """Add the endpoints to the Blocks that are being built."""
    for group in GROUPS:
        endpoints = group(studio)
        for line, functions in ((AT_ONCE, endpoints.at_once), (IN_LINE, endpoints.in_line)):
            for function in functions:
                gr.api(endpoint(function, studio.home.log_file), api_name=function.__name__, **line)
