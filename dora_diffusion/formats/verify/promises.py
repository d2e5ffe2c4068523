"""Which reader a format is for: there a file of it gives the very weights, or is no such file."""

from dora_diffusion.registry import READERS

_MUST = {
    "diffusers": ("diffusers",),
    "peft": ("peft",),
    "kohya": ("lycoris",),
    "comfyui": ("comfyui", "forge"),
    # Not Forge: it takes the magnitudes, which only diffusers reads, for the keys of another model.
    "dual": ("diffusers", "comfyui"),
    "diff": ("comfyui", "forge"),
    "lora": ("comfyui", "forge"),  # of the plain LoRA that was found; what that leaves out is told apart
}
# Readers that take such a file too, but not of every model or every layer: A1111 knows the originals' blocks alone,
# sd-scripts has no modules for some layers, diffusers finds a text encoder by its out_proj.
_MAY = {
    "lora": ("a1111", "diffusers", "lycoris", "sd_scripts"),
    "diff": ("a1111", "lycoris"),
}


def readers_of(format_name: str) -> tuple[str, ...]:
    """The readers that a file of this format must be right in."""
    return tuple(READERS.check(reader) for reader in _MUST.get(format_name, ()))


def further_readers_of(format_name: str) -> tuple[str, ...]:
    """Others that are asked too, and whose answer is told."""
    return tuple(READERS.check(reader) for reader in _MAY.get(format_name, ()))


def format_for(reader: str) -> str:
    """The first format that is right in a reader."""
    asked = [*_MUST.items(), *_MAY.items()]
    return next(format_name for format_name, readers in asked if READERS.check(reader) in readers)
