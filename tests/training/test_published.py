"""What previews and the adapter file show: the weights trained, their moving average, or a schedule-free average."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_steps import small_adapter, values, with_gradients
from torch import Tensor
from training_runs import Heard, adapter_bytes, run_it, small_config, tensors

from dora_diffusion.adapters import Adapter
from dora_diffusion.config import OptimConfig
from dora_diffusion.formats import WEIGHTS_NAME, load_adapter, read_safetensors
from dora_diffusion.models import BaseModel
from dora_diffusion.registry import OPTIMIZERS
from dora_diffusion.training import run as training_run
from dora_diffusion.training.checkpoint import Progress
from dora_diffusion.training.ema import Ema
from dora_diffusion.training.events import RunStarted
from dora_diffusion.training.optim import learning_rate_schedule
from dora_diffusion.training.published import published_weights

PUBLISHERS: dict[str, dict[str, Any]] = {
    "ema": {"ema_decay": 0.5},
    "schedule-free": {"optimizer": "adamw_schedule_free"},
}


def make_progress(**settings: Any) -> Progress:
    config = OptimConfig(**{"learning_rate": 0.1, "adam_weight_decay": 0, **settings})
    adapter = small_adapter()
    optimizer = OPTIMIZERS.load(config.optimizer).make(adapter, config)
    ema = Ema(adapter, config.ema_decay) if config.ema_decay else None
    return Progress(adapter, optimizer, learning_rate_schedule(optimizer, config, 9), None, {}, ema=ema)


def gradient(adapter: Adapter, seed: int) -> dict[str, Tensor]:
    return {b.role: b.parameter.grad.clone() for b in with_gradients(adapter, seed).buffers}  # type: ignore[union-attr]


def test_the_moving_average_is_its_formula() -> None:
    """``d * average + (1 - d) * parameter``; 2/11, 3/12, ... until that is more than the decay."""
    progress = make_progress(ema_decay=0.3)
    assert progress.ema is not None
    expected = values(progress.adapter)
    for step, d in ((1, 2 / 11), (2, 3 / 12), (3, 0.3), (4, 0.3)):
        with_gradients(progress.adapter, step)
        progress.optimizer.step()
        progress.ema.update(step)
        trained = values(progress.adapter)
        expected = {role: d * expected[role] + (1 - d) * trained[role] for role in expected}
        with published_weights(progress):
            for role, shown in values(progress.adapter).items():
                torch.testing.assert_close(shown, expected[role])
        assert not torch.allclose(expected["A"], trained["A"])


def test_what_a_schedule_free_run_publishes_is_the_average_of_its_steps() -> None:
    """arXiv:2405.15682: ``y = (1 - b) z + b x``, ``z -= rate * g / (sqrt(v) + eps)``, ``x += (z - x) / (t + 1)``."""
    rate, b1, b2, eps = 0.1, 0.9, 0.999, 1e-8
    progress = make_progress(optimizer="adamw_schedule_free")
    x = {role: value.double() for role, value in values(progress.adapter).items()}
    z, v = dict(x), {role: torch.zeros_like(value) for role, value in x.items()}
    for t in range(5):
        g = {role: value.double() for role, value in gradient(progress.adapter, t).items()}
        progress.optimizer.step()
        for role in x:
            v[role] = b2 * v[role] + (1 - b2) * g[role] ** 2
            z[role] = z[role] - rate * g[role] / ((v[role] / (1 - b2 ** (t + 1))).sqrt() + eps)
            x[role] = x[role] + (z[role] - x[role]) / (t + 1)
        for role, y in values(progress.adapter).items():
            torch.testing.assert_close(y.double(), (1 - b1) * z[role] + b1 * x[role], rtol=1e-5, atol=1e-6)
        with published_weights(progress):
            for role, shown in values(progress.adapter).items():
                torch.testing.assert_close(shown.double(), x[role], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", PUBLISHERS.values(), ids=PUBLISHERS)
def test_publishing_leaves_no_trace(settings: dict[str, Any]) -> None:
    """Not a bit, whatever happens meanwhile: the optimizer's own way there and back rounds."""
    progress, left_alone = make_progress(**settings), make_progress(**settings)
    for step in range(1, 6):
        for one in (progress, left_alone):
            with_gradients(one.adapter, step)
            one.optimizer.step()
            if one.ema is not None:
                one.ema.update(step)
        with pytest.raises(ZeroDivisionError), published_weights(progress):
            # A schedule-free average is its only step after one.
            published, trained = values(progress.adapter)["B"], values(left_alone.adapter)["B"]
            assert torch.equal(published, trained) is (step == 1 and "optimizer" in settings)
            raise ZeroDivisionError
        for role, value in values(progress.adapter).items():
            assert torch.equal(value, values(left_alone.adapter)[role])
    assert progress.optimizer.param_groups[0].get("train_mode", True)


def test_the_layers_see_what_is_published(toybox: BaseModel) -> None:
    """The adapter prepares anew on the way in and on the way out."""
    progress = make_progress(ema_decay=0.9)
    layer = next(iter(progress.adapter.layers.values()))
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        untrained = layer(x)
        for buffer in progress.adapter.buffers:
            buffer.parameter.add_(0.1)
        trained = layer(x)
        with published_weights(progress):
            assert torch.equal(layer(x), untrained)
        assert torch.equal(layer(x), trained)


@pytest.mark.parametrize("name", PUBLISHERS)
def test_a_run_publishes_the_average_and_trains_on_without_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Previews at every step see what the file of a run of that length holds, and change nothing."""
    shown: list[dict[str, Tensor]] = []

    def look(base: BaseModel, *_: object) -> tuple[Path, ...]:
        layer = next(module for module in base.unet.modules() if hasattr(module, "adapter"))
        shown.append({f"{b.component}.{b.role}": b.parameter.detach().clone() for b in layer.adapter.buffers})
        return (tmp_path / "preview.png",)

    monkeypatch.setattr(training_run, "draw_previews", look)
    optim, heard = PUBLISHERS[name], Heard()
    previews = {"validation_prompt": ["a sks teapot"], "validation_steps": 1, "checkpointing_steps": 1}
    run_it(small_config(tmp_path / "shown", 3, optim=optim, run=previews), heard)
    run_it(small_config(tmp_path / "plain", 3, optim=optim))
    assert adapter_bytes(tmp_path / "shown") == adapter_bytes(tmp_path / "plain")
    assert len(shown) == 3
    run_it(small_config(tmp_path / "two", 2, optim=optim))
    for folder, seen in ((tmp_path / "two", shown[1]), (tmp_path / "plain", shown[2])):
        in_file = torch.cat([layer.B.flatten() for layer in load_adapter(folder).layers.values()])
        # The file has the layers in their own order, the buffer by shape.
        assert torch.equal(in_file.sort().values, seen["unet.B"].sort().values)
    trained = tensors(tmp_path / "plain" / "checkpoint-3" / "adapter.safetensors")
    assert not torch.equal(trained["unet.B"], shown[2]["unet.B"])
    _, metadata = read_safetensors(tmp_path / "plain" / WEIGHTS_NAME)
    (said,) = (event.facts["published"] for event in heard.of(RunStarted))
    assert "average of the weights" in said
    assert metadata["dora_diffusion.weights"] == said


def test_a_run_without_an_average_says_nothing_of_one(finished_run: Path) -> None:
    _, metadata = read_safetensors(finished_run / WEIGHTS_NAME)
    assert not any("average" in value for value in metadata.values())
    assert not (finished_run / "checkpoint-3" / "ema.safetensors").exists()


def test_a_checkpoint_holds_the_weights_trained_and_their_average(tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "run", 2, optim={"ema_decay": 0.9}))
    run_it(small_config(tmp_path / "plain", 2))
    kept, plain = tmp_path / "run" / "checkpoint-2", tmp_path / "plain" / "checkpoint-2"
    trained = tensors(plain / "adapter.safetensors")
    assert (kept / "adapter.safetensors").read_bytes() == (plain / "adapter.safetensors").read_bytes()
    averages = tensors(kept / "ema.safetensors")
    assert averages.keys() == trained.keys()
    assert {value.dtype for value in averages.values()} == {torch.float32}
    # B begins at 0: its average lags behind.
    assert 0 < float(averages["unet.B"].norm()) < float(trained["unet.B"].norm())
