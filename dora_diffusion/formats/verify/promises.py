"""Which reader a format is for: there a file of it gives the very weights, or is no such file."""

from dora_diffusion.registry import READERS

_READERS = {
    "diffusers": ("diffusers",),
    "peft": ("peft",),
    "kohya": ("lycoris",),
    "comfyui": ("comfyui", "forge"),
    # Not Forge: it takes the magnitudes, which only diffusers reads, for the keys of another model.
    "dual": ("diffusers", "comfyui"),
    "diff": ("comfyui", "forge", "a1111", "lycoris"),
}


def readers_of(format_name: str) -> tuple[str, ...]:
    """The readers that a file of this format must be right in; none for a format that is judged otherwise."""
    return tuple(READERS.check(reader) for reader in _READERS.get(format_name, ()))
