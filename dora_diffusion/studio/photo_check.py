"""What is to be said about each photo of a subject: too small, blurred, nearly the same as another."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dora_diffusion.errors import DataError

Findings = tuple[tuple[str, str], ...]  # (code, words), in the words of data.checks
_STORED = re.compile(r"\b0*(\d+)\.jpg")


def check(folder: Path, resolution: int) -> dict[str, Findings]:
    """The findings about every photo of ``folder``, by file name; empty where there are no photos.

    Args:
        resolution: side in pixels of the square picture that training will make of them.
    """
    # numpy loads with the first photo, not with the page
    from dora_diffusion.data.checks import check_photos

    try:
        reports = check_photos(folder, resolution)
    except DataError:  # no photos, or no folder
        return {}
    return {
        report.path.name: tuple((finding.code, _told(finding.message)) for finding in report.findings)
        for report in reports
    }


def mentions(findings: Mapping[str, Findings], name: str) -> bool:
    """Whether what is said about another photo has to do with the photo ``name``."""
    words = _told(name)
    return any(
        re.search(rf"\b{words}\b", said, re.IGNORECASE)
        for other, found in findings.items()
        if other != name
        for _, said in found
    )


def sentences(findings: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What a page shows of findings."""
    return tuple(words for _, words in findings)


def _told(message: str) -> str:
    """Photos by number, as a page shows them: the stored names mean nothing to a user."""
    said = _STORED.sub(r"photo \1", message)
    return said[:1].upper() + said[1:]
