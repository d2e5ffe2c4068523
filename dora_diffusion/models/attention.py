"""Attention backends: probed before they are used, and the choice reported."""

import logging
from typing import Any

import torch

from dora_diffusion.errors import MachineError
from dora_diffusion.registry import ATTENTION_BACKENDS

logger = logging.getLogger(__name__)


class ScaledDotProduct:
    """PyTorch's own attention: always there."""

    name = "sdpa"

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def apply(self, unet: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        unet.set_attn_processor(AttnProcessor2_0())


class XFormers:
    """Memory-efficient attention of the xformers package; CUDA only."""

    name = "xformers"

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot be used, found by running it once against PyTorch's attention."""
        if device.type != "cuda":
            return f"its kernels need a CUDA device, this is {device.type}"
        try:
            import xformers.ops
        except (ImportError, OSError) as error:
            return f"the package cannot be imported ({error}); install it with: pip install 'dora-diffusion[xformers]'"
        q = torch.randn(1, 64, 4, 40, device=device, dtype=dtype)
        try:
            ours = xformers.ops.memory_efficient_attention(q, q, q)
        except Exception as error:  # xformers raises whatever its kernels raise, and any of it means "not here"
            first = (str(error).splitlines() or ["no message"])[0]
            return f"its kernels do not run here ({type(error).__name__}: {first})"
        turned = q.transpose(1, 2)
        theirs = torch.nn.functional.scaled_dot_product_attention(turned, turned, turned).transpose(1, 2)
        worst = (ours - theirs).abs().max().item()
        return None if worst < 0.05 else f"its result differs from PyTorch's by {worst:.2g}"

    def apply(self, unet: Any) -> None:
        from diffusers.models.attention_processor import XFormersAttnProcessor

        unet.set_attn_processor(XFormersAttnProcessor())


SDPA = ScaledDotProduct()
XFORMERS = XFormers()


def probe_backends(device: torch.device | None = None, dtype: torch.dtype = torch.float16) -> dict[str, str]:
    """Every backend's name with "works", or the reason why it does not."""
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {name: ATTENTION_BACKENDS.load(name).obstacle(where, dtype) or "works" for name in ATTENTION_BACKENDS}


def choose_attention(unet: Any, wanted: str) -> str:
    """Give ``unet`` the backend ``wanted`` and say in words which one it got.

    "auto" is sdpa: it is as fast as xformers on every GPU that has flash attention, and needs nothing.

    Raises:
        ConfigError: an unknown name.
        MachineError: never for "auto"; a named backend that cannot run falls back to sdpa with a warning instead.
    """
    backend = ATTENTION_BACKENDS.load("sdpa" if wanted == "auto" else wanted)
    obstacle = backend.obstacle(unet.device, unet.dtype)
    if obstacle is None:
        backend.apply(unet)
        return str(backend.name)
    if SDPA.obstacle(unet.device, unet.dtype) is not None:
        raise MachineError("No attention backend runs on this machine.")
    logger.warning("Attention backend %s cannot be used: %s. Falling back to sdpa.", wanted, obstacle)
    SDPA.apply(unet)
    return f"sdpa ({wanted} cannot be used: {obstacle})"
