"""How strictly a prompt is followed where nobody says it: a matter of the base."""

# toybox was trained on captions that say exactly what is seen. More guidance than this makes its toys more like the
# words and less like the subject (docs/toybox.md has the table).
_OF_BASE = {"toybox": 3.0}
_OF_OTHERS = 5.0


def usual_guidance(base_name: str) -> float:
    """The guidance scale that suits the base of this name."""
    return _OF_BASE.get(base_name, _OF_OTHERS)
