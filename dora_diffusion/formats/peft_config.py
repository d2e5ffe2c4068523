"""The settings PEFT keeps beside its tensors: how much of ``B A`` each layer adds."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dora_diffusion.errors import FormatError


class LayerScales:
    """``alpha / rank`` by layer, as PEFT's ``LoraConfig`` has it.

    Args:
        config: the fields of a ``LoraConfig``; those it lacks have PEFT's defaults.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._config = config

    def of(self, path: str, rank: int) -> float:
        """The scale of the layer at ``path``, with or without CLIP's level "text_model"; ``rank`` is its factors'.

        A pattern is a regex for the end of a path (``peft.utils.other.get_pattern_key``).

        Raises:
            FormatError: the settings make no number.
        """
        patterns = self._config.get("alpha_pattern") or {}
        bare = path.removeprefix("text_model.")
        try:
            if not isinstance(patterns, Mapping):
                raise TypeError(patterns)
            found = next((p for p in patterns if _ends(p, path) or _ends(p, bare)), None)
            alpha = float(patterns[found] if found is not None else self._config.get("lora_alpha", 8))
        except (TypeError, ValueError, AttributeError, re.error):
            raise FormatError(f"The settings beside {path} give it no alpha that is a number.") from None
        if not math.isfinite(alpha) or alpha <= 0:
            raise FormatError(f"The settings beside {path} give it alpha {alpha:g}; a number above 0 is expected.")
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def check_kind(self, path: Path, component: str, has_magnitude: bool) -> None:
        """Raises: FormatError: the settings say that there are magnitudes and there are none, or the reverse."""
        use_dora = self._config.get("use_dora", False)
        if bool(use_dora) != has_magnitude:
            raise FormatError(
                f"{path} contradicts itself: its settings for {component} say use_dora={bool(use_dora)}, and its "
                f"layers have {'magnitudes' if has_magnitude else 'no magnitudes'}."
            )


def _ends(pattern: str, path: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", path) is not None
