"""Contact sheets: rows of pictures under captions, as one PNG to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN, LABEL = 6, 12, 96
INK, PAPER, FAINT = (30, 30, 34), (255, 255, 255), (120, 120, 126)


@dataclass(frozen=True)
class Row:
    """One line of the sheet."""

    label: str
    pictures: Sequence[Image.Image]


def sheet(rows: Sequence[Row], captions: Sequence[str], side: int = 160, title: str = "") -> Image.Image:
    """A sheet of ``rows``; ``captions`` stand over the columns (of the rows after the first, whose pictures are
    photos).

    The first row may have fewer pictures than there are columns; every picture is shown at ``side`` pixels.
    """
    columns = max(len(captions), *(len(row.pictures) for row in rows))
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    head = MARGIN + (26 if title else 0)
    caption_height = 2 + 15 * max((len(_wrap(caption, small, side)) for caption in captions), default=0)
    height = head + len(rows) * (side + GAP) + caption_height + MARGIN + GAP
    page = Image.new("RGB", (MARGIN * 2 + LABEL + columns * (side + GAP), height), PAPER)
    pen = ImageDraw.Draw(page)
    if title:
        pen.text((MARGIN, MARGIN - 2), title, INK, font)
    top = head
    for number, row in enumerate(rows):
        if number == 1:
            for column, caption in enumerate(captions):
                lines = "\n".join(_wrap(caption, small, side))
                pen.multiline_text((MARGIN + LABEL + column * (side + GAP), top), lines, FAINT, small, spacing=2)
            top += caption_height + GAP
        pen.multiline_text((MARGIN, top + side // 2 - 10), "\n".join(_wrap(row.label, font, LABEL - 8)), INK, font)
        for column, picture in enumerate(row.pictures):
            page.paste(_fit(picture, side), (MARGIN + LABEL + column * (side + GAP), top))
        top += side + GAP
    return page


def save_sheet(page: Image.Image, path: Path) -> Path:
    """Write the sheet as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)
    return path


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """The picture, its centre square, ``side`` pixels wide."""
    shorter = min(picture.size)
    left, top = (picture.width - shorter) // 2, (picture.height - shorter) // 2
    square = picture.convert("RGB").crop((left, top, left + shorter, top + shorter))
    return square.resize((side, side), Image.Resampling.LANCZOS if shorter > side else Image.Resampling.BICUBIC)


def _wrap(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
