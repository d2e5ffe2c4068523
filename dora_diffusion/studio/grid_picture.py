"""A grid of pictures with headers over its columns and before its rows, as one picture."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN, LABEL, LINE = 8, 16, 96, 20
INK, PAPER, FAINT = (30, 30, 34), (255, 255, 255), (100, 100, 106)
MAX_PIXELS = 24_000_000
MIN_COLUMN = 112  # pixels that a header needs; smaller pictures stand in the middle

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def grid_picture(
    rows: Sequence[str], columns: Sequence[str], pictures: Mapping[tuple[int, int], Image.Image], title: str = ""
) -> Image.Image:
    """``pictures`` by (row, column), at their own size where that is not too much; absent ones stay empty."""
    width, height = _cell_size(len(rows), len(columns), pictures)
    across = max(width, MIN_COLUMN)
    font = ImageFont.load_default(15)
    left = MARGIN + (LABEL if any(rows) else 0)
    whole = left + len(columns) * (across + GAP) - GAP + MARGIN
    lines = wrapped(title, font, whole - 2 * MARGIN)[:4] if title else []
    top = MARGIN + len(lines) * LINE + (GAP if lines else 0)
    head = LINE * max(len(wrapped(text, font, across)) for text in columns) + 4
    page = Image.new("RGB", (whole, top + head + len(rows) * (height + GAP) - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + number * LINE), line, INK, font)
    for column, text in enumerate(columns):
        for number, line in enumerate(wrapped(text, font, across)):
            pen.text((left + column * (across + GAP) + across / 2, top + number * LINE), line, FAINT, font, anchor="ma")
    for row, text in enumerate(rows):
        y = top + head + row * (height + GAP)
        for number, line in enumerate(wrapped(text, font, LABEL - GAP)):
            pen.text((MARGIN, y + height // 2 - 10 + number * LINE), line, FAINT, font)
        for column in range(len(columns)):
            picture = pictures.get((row, column))
            if picture is not None:
                x = left + column * (across + GAP) + (across - width) // 2
                page.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (x, y))
    return page


def wrapped(text: str, font: Font, width: float) -> list[str]:
    """``text`` in lines of at most ``width`` pixels; a word that is longer is cut."""
    lines: list[str] = []
    for word in text.split():
        while font.getlength(word) > width and len(word) > 1:
            word = word[:-1]
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def _cell_size(rows: int, columns: int, pictures: Mapping[tuple[int, int], Image.Image]) -> tuple[int, int]:
    """The largest picture's size, smaller where the whole grid would be too large."""
    width = max(picture.width for picture in pictures.values())
    height = max(picture.height for picture in pictures.values())
    scale = min(1.0, math.sqrt(MAX_PIXELS / (rows * columns * width * height)))
    return max(1, int(width * scale)), max(1, int(height * scale))
