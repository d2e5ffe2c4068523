"""Places and ways of painting for a prompt, at a press: words that every base knows, the embedded one too."""

SCENES = {
    "Beach": "on the beach",
    "Snow": "in the snow",
    "Forest": "in the forest",
    "City": "in a city at night",
    "Sunset": "at sunset",
    "Moon": "on the moon",
    "Underwater": "underwater",
    "Kitchen": "in the kitchen",
}
STYLES = {
    "Photo": "a photo of",
    "Watercolor": "a watercolor painting of",
    "Pencil": "a pencil sketch of",
    "Pixel art": "pixel art of",
}
_OPENINGS = (*STYLES.values(), "an oil painting of", "a painting of", "a drawing of", "a picture of", "a sketch of")


def with_scene(prompt: str, scene: str) -> str:
    """``prompt`` in another place: a known place at its end gives way, otherwise the place is put behind it."""
    words = prompt.rstrip(" ,.")
    for known in SCENES.values():
        if words.endswith(f" {known}"):
            words = words.removesuffix(known).rstrip(" ,")
            break
    return f"{words} {SCENES[scene]}".strip()


def with_style(prompt: str, style: str) -> str:
    """``prompt`` painted in another way: a known opening gives way, otherwise the new one is put before it."""
    words = prompt.lstrip()
    for known in sorted(_OPENINGS, key=len, reverse=True):
        if words.lower().startswith(f"{known} "):
            words = words[len(known) :].lstrip()
            break
    return f"{STYLES[style]} {words}".strip()
