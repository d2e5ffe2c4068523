"""Attention backends: run before they are used, compared, and the choice reported."""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dora_diffusion.errors import MachineError
from dora_diffusion.registry import ATTENTION_BACKENDS

logger = logging.getLogger(__name__)

TOLERANCE = 0.05  # a result may differ from PyTorch's by this share of its largest entry: rounding in half precision
GAIN = 0.9  # another backend must take this share of sdpa's time or less: what is always there wins a tie
RUNS = 3
PROMPT_TOKENS = 77


class Shape(NamedTuple):
    """One attention: ``queries`` and ``keys`` tokens in ``heads`` heads of ``width`` channels."""

    heads: int
    width: int
    queries: int
    keys: int


class Backend(Protocol):
    """One way to compute attention."""

    name: str

    def missing(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """What the machine lacks for it, known without running it; None: it can be tried."""

    def run(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of (b, heads, tokens, width), as the processor computes it."""

    def apply(self, unet: Any) -> None:
        """Give ``unet`` the backend's processor."""


class ScaledDotProduct:
    """PyTorch's own attention, which picks a kernel by itself: always there."""

    name = "sdpa"

    def missing(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def run(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def apply(self, unet: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        unet.set_attn_processor(AttnProcessor2_0())


class Flash:
    """PyTorch's attention held to its flash kernels (arXiv:2307.08691): in half precision alone on a GPU."""

    name = "flash"

    def missing(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def run(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with _flash_alone():
            return F.scaled_dot_product_attention(q, k, v)

    def apply(self, unet: Any) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        class FlashAttnProcessor(AttnProcessor2_0):
            """diffusers' processor around the flash kernels."""

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                with _flash_alone():
                    return super().__call__(*args, **kwargs)

        unet.set_attn_processor(FlashAttnProcessor())


class XFormers:
    """Memory-efficient attention of the xformers package; CUDA only."""

    name = "xformers"

    def missing(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cuda":
            return f"its kernels need a CUDA device, this is {device.type}"
        try:
            import xformers.ops  # noqa: F401
        except (ImportError, OSError) as error:
            return f"the package cannot be imported ({error}); install it with: pip install 'dora-diffusion[xformers]'"
        return None

    def run(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        import xformers.ops

        turned = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        return xformers.ops.memory_efficient_attention(*turned).transpose(1, 2)

    def apply(self, unet: Any) -> None:
        from diffusers.models.attention_processor import XFormersAttnProcessor

        unet.set_attn_processor(XFormersAttnProcessor())


SDPA = ScaledDotProduct()
FLASH = Flash()
XFORMERS = XFormers()

SMALL = Shape(heads=4, width=40, queries=64, keys=64)


def probe_backends(device: torch.device | None = None, dtype: torch.dtype = torch.float16) -> dict[str, str]:
    """Every backend's name with "works", or the reason why it does not."""
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {name: ATTENTION_BACKENDS.load(name) for name in ATTENTION_BACKENDS}
    return {name: obstacle(backend, [SMALL], where, dtype) or "works" for name, backend in found.items()}


def choose_attention(unet: Any, wanted: str) -> str:
    """Give ``unet`` the backend ``wanted`` and say in words which one it got.

    "auto" is the fastest on this device, found by running each on the UNet's own shapes; on a CPU it is sdpa, unasked.

    Raises:
        ConfigError: an unknown name.
        MachineError: nothing runs; a named backend that cannot run falls back to sdpa with a warning instead.
    """
    shapes = list(attention_shapes(unet)) or [SMALL]
    if wanted == "auto" and unet.device.type != "cpu":
        return _choose_fastest(unet)
    backend = ATTENTION_BACKENDS.load("sdpa" if wanted == "auto" else wanted)
    reason = obstacle(backend, shapes, unet.device, unet.dtype)
    if reason is None:
        backend.apply(unet)
        return str(backend.name)
    if obstacle(SDPA, shapes, unet.device, unet.dtype) is not None:
        raise MachineError("No attention backend runs on this machine.")
    logger.warning("Attention backend %s cannot be used: %s. Falling back to sdpa.", wanted, reason)
    SDPA.apply(unet)
    return f"sdpa ({wanted} cannot be used: {reason})"


def _choose_fastest(unet: Any) -> str:
    shapes = attention_shapes(unet) or Counter([SMALL])
    every = [ATTENTION_BACKENDS.load(name) for name in ATTENTION_BACKENDS]
    able = [backend for backend in every if obstacle(backend, shapes, unet.device, unet.dtype) is None]
    if not able:
        raise MachineError("No attention backend runs on this machine.")
    times = {backend.name: milliseconds(backend, shapes, unet.device, unet.dtype) for backend in able}
    best = fastest(times)
    next(backend for backend in able if backend.name == best).apply(unet)
    told = ", ".join(f"{name} {taken:.2f} ms" for name, taken in times.items())
    return f"{best} (measured: {told})"


def fastest(times: dict[str, float]) -> str:
    """The name of the backend to take, by milliseconds: sdpa, unless another is clearly faster."""
    best = min(times, key=lambda name: times[name])
    return "sdpa" if "sdpa" in times and times[best] > GAIN * times["sdpa"] else best


def attention_shapes(unet: Any) -> Counter[Shape]:
    """The attentions of a UNet's way down at its own resolution, and how many there are of each.

    The way up repeats the way down; a UNet without named levels has none here.
    """
    side = getattr(unet.config, "sample_size", None)
    found: Counter[Shape] = Counter()
    if not isinstance(side, int):
        return found
    for level, block in enumerate(getattr(unet, "down_blocks", [])):
        tokens = max(1, side >> level) ** 2
        for path, module in block.named_modules():
            if path.endswith((".attn1", ".attn2")):
                width = module.inner_dim // module.heads
                found[Shape(module.heads, width, tokens, PROMPT_TOKENS if path.endswith("2") else tokens)] += 1
    return found


def obstacle(backend: Backend, shapes: Iterable[Shape], device: torch.device, dtype: torch.dtype) -> str | None:
    """Why ``backend`` cannot be used, found by running it forward and backward against PyTorch's attention."""
    lacking = backend.missing(device, dtype)
    if lacking is not None or backend is SDPA:
        return lacking
    for shape in shapes:
        try:
            inputs = _inputs(shape, device, dtype)
            ours, theirs = (_forward_and_backward(b, inputs) for b in (backend, SDPA))
        except Exception as error:  # a kernel raises whatever it likes, and any of it means "not here"
            first = (str(error).splitlines() or ["no message"])[0].rstrip(".")
            return f"its kernels do not run here ({type(error).__name__}: {first})"
        worst = max(_difference(a, b) for a, b in zip(ours, theirs, strict=True))
        if not worst < TOLERANCE:
            return f"its result differs from PyTorch's by {100 * worst:.2g} %"
    return None


def milliseconds(backend: Backend, shapes: Counter[Shape], device: torch.device, dtype: torch.dtype) -> float:
    """Time of all attentions in ``shapes``, forward and backward, at batch 1; the best of a few runs."""

    def once(inputs: list[Tensor]) -> float:
        _wait(device)
        began = time.perf_counter()
        _forward_and_backward(backend, inputs)
        _wait(device)
        return 1000 * (time.perf_counter() - began)

    total = 0.0
    for shape, count in shapes.items():
        inputs = _inputs(shape, device, dtype)
        once(inputs)  # kernels are loaded at their first use
        total += count * min(once(inputs) for _ in range(RUNS))
    return total


def _inputs(shape: Shape, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """q, k and v, (1, heads, tokens, width): the same numbers every time."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, shape.heads, tokens, shape.width, generator=generator).to(device, dtype).requires_grad_()
        for tokens in (shape.queries, shape.keys, shape.keys)
    ]


def _forward_and_backward(backend: Backend, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """The output and the gradients of its sum with respect to q, k and v."""
    with torch.enable_grad():
        out = backend.run(*inputs)
        return (out.detach(), *torch.autograd.grad(out.sum(), inputs))


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest entry."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def _flash_alone() -> Any:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.FLASH_ATTENTION)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
