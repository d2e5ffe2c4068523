"""Attention backends: probed, chosen, and the fallback told."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dora_diffusion.errors import ConfigError, MachineError
from dora_diffusion.models import attention, choose_attention, load_base, probe_backends
from dora_diffusion.registry import ATTENTION_BACKENDS


@pytest.fixture
def unet(tiny_folder: Path) -> Any:
    return load_base(str(tiny_folder)).unet


def processors(unet: Any) -> set[str]:
    return {type(processor).__name__ for processor in unet.attn_processors.values()}


def test_every_backend_is_probed_on_the_cpu() -> None:
    found = probe_backends(torch.device("cpu"), torch.float32)
    assert list(found) == list(ATTENTION_BACKENDS)
    assert found["sdpa"] == "works"
    assert found["xformers"] == "its kernels need a CUDA device, this is cpu"


def test_a_gpu_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    found = probe_backends(torch.device("cuda"), torch.float16)
    assert (
        found["xformers"].startswith("the package cannot be imported")
        and "dora-diffusion[xformers]" in found["xformers"]
    )


@pytest.mark.parametrize("wanted", ["auto", "sdpa"])
def test_auto_is_sdpa(unet: Any, wanted: str, caplog: pytest.LogCaptureFixture) -> None:
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
    monkeypatch.setattr(attention.XFORMERS, "obstacle", lambda device, dtype: None)
    monkeypatch.setattr(attention.XFORMERS, "apply", used.append)
    assert choose_attention(unet, "xformers") == "xformers" and used == [unet]


def test_an_unknown_backend(unet: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"Unknown attention backend 'xformer'; known: sdpa, xformers\. Did you mean 'xf"
    ):
        choose_attention(unet, "xformer")


def test_no_backend_at_all(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (attention.SDPA, attention.XFORMERS):
        monkeypatch.setattr(backend, "obstacle", lambda device, dtype: "broken")
    with pytest.raises(MachineError, match="No attention backend runs on this machine"):
        choose_attention(unet, "auto")


def test_the_choice_does_not_change_the_output(unet: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    sample, hidden = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    before = unet(sample, 10, hidden).sample
    choose_attention(unet, "auto")
    torch.testing.assert_close(unet(sample, 10, hidden).sample, before)
