"""Every registered optimizer on a real GPU: it learns, and a stopped run ends in the bytes of one that was not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dora_diffusion.config import TrainConfig
from dora_diffusion.formats import WEIGHTS_NAME, load_adapter
from dora_diffusion.registry import OPTIMIZERS
from dora_diffusion.training import Event, train
from dora_diffusion.training.events import StepDone

pytestmark = pytest.mark.gpu

RATES = {name: {"prodigy": 1.0, "lion": 1e-4}.get(name, 1e-3) for name in OPTIMIZERS}
STEPS = 6


def config(folder: Path, photos: Path, optimizer: str, precision: str) -> TrainConfig:
    return TrainConfig(
        data={"instance_data_dir": photos, "class_noun": "teapot", "resolution": 64},
        adapter={"rank": 4, "train_text_encoder": True},
        optim={"optimizer": optimizer, "learning_rate": RATES[optimizer]},
        run={"output_dir": folder, "max_train_steps": STEPS, "mixed_precision": precision},
    )


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that add in the same order every time: the fastest ones do not."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_stops_and_goes_on(optimizer: str, precision: str, tmp_path: Path, subject_photos: Path) -> None:
    whole = train(config(tmp_path / "whole", subject_photos, optimizer, precision))
    done: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            done.append(event.step)

    parts = config(tmp_path / "parts", subject_photos, optimizer, precision)
    assert train(parts, listen, lambda: bool(done) and done[-1] >= STEPS // 2).stopped
    assert not train(parts, listen).stopped
    assert (tmp_path / "parts" / WEIGHTS_NAME).read_bytes() == (tmp_path / "whole" / WEIGHTS_NAME).read_bytes()
    layers = load_adapter(whole.adapter).layers.values()
    assert torch.stack([(layer.B != 0).float().mean() for layer in layers]).mean() > 0.9
