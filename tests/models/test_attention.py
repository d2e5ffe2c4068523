"""Attention backends: run, compared, timed and chosen; and the fallback told."""

import logging
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dora_diffusion.errors import ConfigError, MachineError
from dora_diffusion.models import attention, choose_attention, load_base, probe_backends
from dora_diffusion.models.attention import FLASH, SDPA, SMALL, Shape, attention_shapes, fastest, milliseconds, obstacle
from dora_diffusion.registry import ATTENTION_BACKENDS

CPU = torch.device("cpu")


class Fake:
    """A backend of a test's own."""

    name = "fake"

    def missing(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def run(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


@pytest.fixture
def unet(tiny_folder: Path) -> Any:
    return load_base(str(tiny_folder)).unet


def processors(unet: Any) -> set[str]:
    return {type(processor).__name__ for processor in unet.attn_processors.values()}


def test_every_backend_is_probed_on_the_cpu() -> None:
    found = probe_backends(CPU, torch.float32)
    assert list(found) == list(ATTENTION_BACKENDS)
    assert found["sdpa"] == "works"
    assert found["xformers"] == "its kernels need a CUDA device, this is cpu"


def test_a_gpu_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    found = attention.XFORMERS.missing(torch.device("cuda"), torch.float16)
    assert found is not None
    assert found.startswith("the package cannot be imported") and "dora-diffusion[xformers]" in found


@pytest.mark.parametrize("wanted", ["auto", "sdpa"])
def test_auto_is_sdpa_on_a_cpu(unet: Any, wanted: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_attention(unet, wanted) == "sdpa"
    assert processors(unet) == {"AttnProcessor2_0"} and not caplog.records


def test_xformers_falls_back_with_a_warning(unet: Any, caplog: pytest.LogCaptureFixture) -> None:
    reason = "its kernels need a CUDA device, this is cpu"
    assert choose_attention(unet, "xformers") == f"sdpa (xformers cannot be used: {reason})"
    assert processors(unet) == {"AttnProcessor2_0"}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"Attention backend xformers cannot be used: {reason}. Falling back to sdpa."


def test_a_backend_that_can_run_is_used(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    monkeypatch.setattr(attention.XFORMERS, "missing", lambda device, dtype: None)
    monkeypatch.setattr(attention.XFORMERS, "run", SDPA.run)
    monkeypatch.setattr(attention.XFORMERS, "apply", used.append)
    assert choose_attention(unet, "xformers") == "xformers" and used == [unet]


def test_an_unknown_backend(unet: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"Unknown attention backend 'xformer'; known: sdpa, flash, xformers\. Did you mean 'xf"
    ):
        choose_attention(unet, "xformer")


def test_no_backend_at_all(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (SDPA, FLASH, attention.XFORMERS):
        monkeypatch.setattr(backend, "missing", lambda device, dtype: "broken")
    with pytest.raises(MachineError, match="No attention backend runs on this machine"):
        choose_attention(unet, "auto")


@pytest.mark.parametrize("backend", ["auto", "flash"])
def test_the_choice_does_not_change_the_output(unet: Any, backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    sample, hidden = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    before = unet(sample, 10, hidden).sample
    choose_attention(unet, backend)
    torch.testing.assert_close(unet(sample, 10, hidden).sample, before)


# ------------------------------------------------------------------------------------------------- flash
def test_flash_runs_no_other_kernel(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the UNet, and afterwards everything is allowed again."""
    allowed: list[tuple[bool, bool]] = []

    def watch(*tensors: Tensor, **how: Any) -> Tensor:
        allowed.append((torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()))
        return plain(*tensors, **how)

    plain = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    assert choose_attention(unet, "flash") == "flash"
    assert processors(unet) == {"FlashAttnProcessor"}
    allowed.clear()
    unet(torch.zeros(1, 4, 8, 8), 10, torch.zeros(1, 5, 16))
    assert allowed and set(allowed) == {(True, False)}
    assert torch.backends.cuda.math_sdp_enabled()


def test_flash_without_a_kernel_falls_back(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says on a GPU that has none is what it says when every kernel is forbidden."""
    monkeypatch.setattr(attention, "_flash_alone", lambda: sdpa_kernel([SDPBackend.CUDNN_ATTENTION]))
    chosen = choose_attention(unet, "flash")
    assert chosen.startswith("sdpa (flash cannot be used: its kernels do not run here (RuntimeError: ")
    assert processors(unet) == {"AttnProcessor2_0"}


# ------------------------------------------------------------------------------------------------- probing
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda q, k, v: F.scaled_dot_product_attention(q, k, v) * 1.2, "its result differs from PyTorch's by"),
        (lambda q, k, v: F.scaled_dot_product_attention(q, k, v.detach()) + 0 * v, "its result differs"),
        (lambda q, k, v: F.scaled_dot_product_attention(q, k, v) * float("nan"), "its result differs"),
        (lambda q, k, v: F.scaled_dot_product_attention(q.detach(), k.detach(), v.detach()), "its kernels do not run"),
    ],
    ids=["too large", "no gradient for v", "not a number", "no backward"],
)
def test_a_wrong_result_is_refused(wrong: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    assert obstacle(fake, [SMALL], CPU, torch.float32) is None
    monkeypatch.setattr(fake, "run", wrong)
    reason = obstacle(fake, [SMALL], CPU, torch.float32)
    assert reason is not None and reason.startswith(told)


def test_rounding_in_half_precision_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed in float32 and rounded once, against PyTorch's own bfloat16."""
    fake = Fake()
    monkeypatch.setattr(fake, "run", lambda *qkv: SDPA.run(*(t.float() for t in qkv)).to(qkv[0].dtype))
    assert obstacle(fake, [SMALL, Shape(8, 40, 256, 77)], CPU, torch.bfloat16) is None


def test_shapes_are_those_of_stable_diffusion_1() -> None:
    """Three levels of two blocks each, 8 heads of a growing width; the innermost level has no attention."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    expected: Counter[Shape] = Counter()
    for width, tokens in ((40, 64 * 64), (80, 32 * 32), (160, 16 * 16)):
        expected += Counter({Shape(8, width, tokens, tokens): 2, Shape(8, width, tokens, 77): 2})
    assert attention_shapes(unet) == expected


@pytest.mark.parametrize(
    ("times", "best"),
    [
        ({"sdpa": 1.0, "flash": 0.95, "xformers": 2.0}, "sdpa"),
        ({"sdpa": 1.0, "flash": 0.8, "xformers": 0.7}, "xformers"),
        ({"flash": 2.0, "xformers": 1.9}, "xformers"),
    ],
)
def test_the_fastest_wins_and_a_tie_is_sdpas(times: dict[str, float], best: str) -> None:
    assert fastest(times) == best


def test_time_is_of_all_attentions_of_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(fake, "run", lambda *qkv: (time.sleep(0.01), SDPA.run(*qkv))[1])
    taken = milliseconds(fake, Counter({SMALL: 3, Shape(2, 8, 16, 16): 1}), CPU, torch.float32)
    assert 40 <= taken < 400


def test_auto_on_a_gpu_takes_the_fastest_and_says_the_times(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a GPU in name only; what is timed is told here."""

    class Elsewhere:
        def __init__(self, unet: Any):
            self._unet = unet
            self.device = torch.device("cuda")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._unet, name)

    taken = {"sdpa": 2.0, "flash": 1.5, "xformers": 1.6}
    monkeypatch.setattr(attention, "obstacle", lambda backend, *_: "no" if backend.name == "xformers" else None)
    monkeypatch.setattr(attention, "milliseconds", lambda backend, *_: taken[backend.name])
    assert choose_attention(Elsewhere(unet), "auto") == "flash (measured: sdpa 2.00 ms, flash 1.50 ms)"
    assert processors(unet) == {"FlashAttnProcessor"}
