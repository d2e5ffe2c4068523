"""Pictures of many pictures, to judge a stage by eye."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

GAP = 2  # pixels of white between two pictures


def tiles(rows: Sequence[Tensor]) -> Image.Image:
    """One row of the sheet for each ``(n, 3, h, w)`` of bytes; all pictures have one size."""
    lines = [torch.cat([_framed(picture) for picture in row], 2) for row in rows]
    width = max(line.shape[2] for line in lines)
    page = torch.cat([F.pad(line, (0, width - line.shape[2]), value=255) for line in lines], 1)
    return Image.fromarray(page.permute(1, 2, 0).cpu().contiguous().numpy())


def zoomed(pictures: Tensor) -> Tensor:
    """The middle of each picture, three times as large: as much of it as fits."""
    side = pictures.shape[-1]
    part = (side + 2) // 3
    start = (side - part) // 2
    middle = pictures[..., start : start + part, start : start + part]
    large = middle.repeat_interleave(3, -1).repeat_interleave(3, -2)
    return large[..., :side, :side]


def write_sheet(rows: Sequence[Tensor], path: Path) -> None:
    """Write ``tiles`` of ``rows`` as PNG."""
    tiles(rows).save(path, optimize=True)


def _framed(picture: Tensor) -> Tensor:
    return F.pad(picture, (GAP, GAP, GAP, GAP), value=255)
