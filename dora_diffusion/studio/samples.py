"""The sample subjects that come with the package."""

from pathlib import Path

from dora_diffusion.errors import DataError

SAMPLES = ("teapot", "backpack", "robot")  # those that the studio offers; their file names are their class nouns


def samples_folder() -> Path:
    """The sample subjects: inside an installed package, or beside it in a checkout.

    Raises:
        DataError: neither has them.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "samples", package.parent / "samples"):
        if (folder / "subjects").is_dir():
            return folder
    raise DataError("The sample subjects are not installed; run from a checkout.")


def sample_photos(name: str) -> list[Path]:
    """The photos of a sample subject, in order; empty where there is none."""
    return sorted((samples_folder() / "subjects" / name).glob("*.jpg"))
