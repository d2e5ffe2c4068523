"""The same picture twice: from our merged weights, and from those that a reader makes of a file."""

import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from dora_diffusion.adapters import AdapterState
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.verify import AdapterFile, BaseWeights, MisfitError, Reader
from dora_diffusion.inference import Drawing, MergedWeights, draw_tensor
from dora_diffusion.inference.draw import pictures_of
from dora_diffusion.models import BaseModel


@dataclass(frozen=True)
class PicturePair:
    """``ours`` and ``theirs``, (3, h, w) in 0 to 1."""

    ours: Tensor
    theirs: Tensor

    @property
    def psnr(self) -> float:
        """Peak signal to noise in dB, of the floats before they become 8 bit; infinite for equal pictures."""
        return psnr(self.ours, self.theirs)

    def side_by_side(self) -> Image.Image:
        """Ours on the left."""
        (image,) = pictures_of(torch.cat([self.ours, self.theirs], dim=2)[None])
        return image


def psnr(ours: Tensor, theirs: Tensor) -> float:
    """``-10 log10`` of the mean squared difference of two pictures in 0 to 1."""
    difference = float((ours.double() - theirs.double()).square().mean())
    return -10 * math.log10(difference) if difference else math.inf


@torch.no_grad()
def picture_pair(
    base: BaseModel, state: AdapterState, file: AdapterFile, reader: Reader, prompt: str, seed: int, how: Drawing
) -> PicturePair:
    """Draw ``prompt`` with ``state`` merged in, then with what ``reader`` makes of ``file``.

    Args:
        base: plain, on any device; it is left with the reader's weights.

    Raises:
        AdapterError: the adapter does not fit this base.
    """
    weights = LoadedBase(base).weights
    read = _as_read(file, reader, BaseWeights(base.family.name, weights))
    merged = MergedWeights(base, keep=0)
    merged.switch(state)
    (ours,) = draw_tensor(base, [prompt], [seed], how).cpu()
    merged.switch(None)
    for name, module in _modules(base).items():
        if name in read:
            module.weight.copy_(read[name])  # type: ignore[operator]
    (theirs,) = draw_tensor(base, [prompt], [seed], how).cpu()
    return PicturePair(ours, theirs)


def _as_read(file: AdapterFile, reader: Reader, base: BaseWeights) -> dict[str, Tensor]:
    """The weights the reader changes."""
    changed = {}
    for name, found in reader.find(file, base).layers.items():
        try:
            changed[name] = reader.merge(found, base.weights[name])
        except MisfitError:
            if reader.stops:
                return {}
    return changed


def _modules(base: BaseModel) -> dict[str, nn.Module]:
    return {
        base.layer_name(component, path): module
        for component, root in base.adaptable().items()
        for path, module in root.named_modules()
    }
