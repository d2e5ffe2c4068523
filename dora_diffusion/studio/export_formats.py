"""What can be exported, in words: what each file is for, and what it cannot do. Proofs are made on each file."""

from dataclasses import dataclass, replace

from dora_diffusion.studio.bases import EMBEDDED


@dataclass(frozen=True)
class FormatNote:
    """An export format in words.

    Args:
        name: as registered, or "merged" (a diffusers folder, zipped) and "merged_checkpoint" (one file).
        what: what kind of file it is.
        readers: the programs that read it right.
        cannot: what it does not carry, or who reads it wrong.
        takes_rank, takes_strength: which settings mean something for it.
        only_published: those of ``readers`` that count blocks as the published models have them.
    """

    name: str
    what: str
    readers: tuple[str, ...]
    cannot: str
    takes_rank: bool = False
    takes_strength: bool = False
    only_published: tuple[str, ...] = ()

    def on(self, base: str) -> "FormatNote":
        """What holds on a base: toybox has fewer blocks than the published models."""
        if base != EMBEDDED or not self.only_published:
            return self
        lost = (
            f"On {EMBEDDED}, whose blocks are numbered otherwise, it is not right in {', '.join(self.only_published)}."
        )
        readers = tuple(reader for reader in self.readers if reader not in self.only_published)
        return replace(self, readers=readers, cannot=f"{self.cannot} {lost}", only_published=())


MERGED_FOLDER, MERGED_FILE = "merged", "merged_checkpoint"
MERGED = (MERGED_FOLDER, MERGED_FILE)
ONE_FILE = "one-file checkpoint"  # what reads a MERGED_FILE back: its layout, and no program's rules

# docs/compatibility.md has the measurements behind each.
FORMATS_IN_WORDS = (
    FormatNote(
        "comfyui",
        "An adapter file, a few megabytes.",
        ("ComfyUI", "Forge"),
        "diffusers and A1111 do not read it right: its numbers undo what ComfyUI does with a DoRA.",
    ),
    FormatNote(
        "diffusers",
        "An adapter file as diffusers loads it: pipe.load_lora_weights(file).",
        ("diffusers",),
        "ComfyUI, Forge and A1111 do not find its layers.",
    ),
    FormatNote(
        "lora",
        "A plain LoRA, the nearest there is: for programs that know no DoRA.",
        ("ComfyUI", "Forge", "A1111", "diffusers", "LyCORIS", "sd-scripts"),
        "It is not the DoRA itself: what a rank leaves out is told. sd-scripts lacks some layers of a full training.",
        takes_rank=True,
        only_published=("A1111",),
    ),
    FormatNote(
        MERGED_FILE,
        "A whole model in one file with the subject in its weights.",
        ("ComfyUI", "Forge", "A1111"),
        "As large as the base; its strength is fixed.",
        takes_strength=True,
        only_published=("ComfyUI", "Forge", "A1111"),
    ),
    FormatNote(
        MERGED_FOLDER,
        "A whole model as a folder for diffusers, in one .zip.",
        ("diffusers",),
        "As large as the base; its strength is fixed.",
        takes_strength=True,
    ),
    FormatNote(
        "dual",
        "One adapter file for two programs.",
        ("diffusers", "ComfyUI"),
        "Forge takes it for another model's and loads none of it.",
    ),
    FormatNote(
        "kohya",
        "An adapter file with the names that kohya's scripts began.",
        ("LyCORIS",),
        "ComfyUI, Forge and A1111 divide by another norm and draw something else; sd-scripts ignores its magnitudes.",
    ),
    FormatNote(
        "diff",
        "The whole differences of all changed layers.",
        ("ComfyUI", "Forge", "A1111", "LyCORIS"),
        "As large as the layers it changes; diffusers and sd-scripts do not read it.",
        only_published=("A1111",),
    ),
    FormatNote(
        "peft",
        "A folder for PEFT, one for each part of the model, in one .zip.",
        ("PEFT",),
        "Other programs do not read it.",
    ),
)
