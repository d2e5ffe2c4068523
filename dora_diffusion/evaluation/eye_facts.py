"""What is known of an eye besides its weights, from the report of its acceptance that lies beside them."""

import json
from pathlib import Path
from typing import Any

from dora_diffusion.toybox import eye

FACTS_FILE = "eye_acceptance.json"
DEFAULT_GATE = 0.5  # where there is no report


def gate_of(folder: Path | None = None) -> float:
    """The class probability below which a picture counts as something else, calibrated on real renders."""
    gate = _facts(folder).get("gate")
    value = gate.get("threshold") if isinstance(gate, dict) else None
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else DEFAULT_GATE


def blind_to(folder: Path | None = None) -> tuple[str, ...]:
    """What the eye cannot tell apart, and what fools it, a sentence each."""
    found = _facts(folder).get("blind")
    return tuple(str(sentence) for sentence in found) if isinstance(found, list) else ()


def is_accepted(folder: Path | None = None) -> bool:
    """Whether the eye was tested at all."""
    return bool(_facts(folder))


def _facts(folder: Path | None) -> dict[str, Any]:
    """The report; empty where there is none that can be read."""
    try:
        content = json.loads(((folder or eye.DEFAULT_FOLDER) / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
