"""How strictly a prompt is followed where nobody says it: a matter of the base."""

import json
from pathlib import Path

# toybox was trained on captions that say exactly what is seen. More guidance than this makes its toys more like the
# words and less like the subject (docs/toybox.md has the table).
_OF_BASE = {"toybox": 3.0}
_OF_OTHERS = 5.0


STAMP = "dora_diffusion_merge.json"  # in a merged pipeline's folder: what was merged into what


def usual_guidance(base_name: str) -> float:
    """The guidance scale that suits the base of this name; of a pipeline that was merged, the one of its base."""
    stamp = Path(base_name) / STAMP
    if stamp.is_file():
        base_name = str(json.loads(stamp.read_text(encoding="utf-8")).get("base", ""))
    return _OF_BASE.get(base_name, _OF_OTHERS)
