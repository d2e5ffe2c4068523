"""Which parts of the base are on the device, and what is recomputed instead of kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dora_diffusion.models import BaseModel


class Parts:
    """Sends the parts of a base that the next steps do not need to the CPU, and fetches them for previews.

    The UNet always stays. Where the base itself is on the CPU, nothing happens.

    Args:
        needed: what the steps use besides: text encoders by name while they are trained, or encode captions that are
            drawn; "vae" while they encode pictures.
    """

    def __init__(self, base: BaseModel, needed: set[str]):
        self._device = base.device
        self._idle = idle_parts(base, needed) if base.device.type != "cpu" else {}

    @property
    def idle(self) -> list[str]:
        """The names of the parts that leave."""
        return list(self._idle)

    def leave(self) -> None:
        """Send what is idle to the CPU."""
        for part in self._idle.values():
            part.to("cpu")
        if self._idle and torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextmanager
    def all_here(self) -> Iterator[None]:
        """Everything is on the device inside."""
        for part in self._idle.values():
            part.to(self._device)
        try:
            yield
        finally:
            self.leave()


def idle_parts(base: BaseModel, needed: set[str]) -> dict[str, nn.Module]:
    """The text encoders and the autoencoder, by name, without those that are needed."""
    parts: dict[str, nn.Module] = {**base.adaptable(), "vae": base.vae}
    return {name: part for name, part in parts.items() if name not in needed and part is not base.unet}


def recompute_activations(base: BaseModel, trained: set[str]) -> None:
    """Keep no activations inside the blocks of the UNet and of trained text encoders; compute them again for backward.

    Also known as gradient checkpointing (arXiv:1604.06174).
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    base.unet.enable_gradient_checkpointing()
    for name, part in base.adaptable().items():
        if name in trained and part is not base.unet:
            for layer in part.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    _recompute_layer(layer)


def _recompute_layer(layer: Any) -> None:
    """Switch one of transformers' layers.

    It listens only where it takes itself to be trained; what is inside of it stays as it is, dropout off. The model's
    own switch is not used: it makes the embeddings ask for gradients that nothing needs.
    """
    layer.gradient_checkpointing = True
    layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    layer.training = True
