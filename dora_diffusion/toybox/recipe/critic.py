"""A patch critic (arXiv:1611.07004, section 3.2.2, with the hinge loss): it looks at small patches and tells renders
from reconstructions, which teaches the decoder texture that a pixel loss smooths away. Off by default: it costs PSNR.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dora_diffusion.toybox.recipe.loop import half_precision
from dora_diffusion.toybox.recipe.processes import average_gradients

_WIDTHS = (48, 96, 192)
_RATE = 3e-4


class Critic:
    """The network and its optimizer."""

    def __init__(self, device: str):
        self._device = device
        self._network = _network().to(device)
        fused = torch.device(device).type == "cuda"
        self._adam = torch.optim.AdamW(self._network.parameters(), lr=_RATE, betas=(0.5, 0.9), fused=fused)

    def complaint(self, made: Tensor) -> Tensor:
        """How little ``made (n, 3, h, w)`` looks like a render: what the autoencoder lowers."""
        return -self._judge(made).mean()

    def learn(self, made: Tensor, real: Tensor) -> None:
        """One step at telling ``made`` from ``real``."""
        loss = (F.relu(1 - self._judge(real)) + F.relu(1 + self._judge(made.detach()))).mean()
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self._network.parameters())
        self._adam.step()

    def _judge(self, pictures: Tensor) -> Tensor:
        with half_precision(self._device):
            return self._network(pictures).float()


def _network() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, _WIDTHS[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for width_in, width in zip(_WIDTHS[:-1], _WIDTHS[1:], strict=True):
        layers += [nn.Conv2d(width_in, width, 4, 2, 1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, 3, 1, 1))
