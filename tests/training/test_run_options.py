"""Settings that change how a run is done: what they may change in the adapter, and what not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training_runs import adapter_bytes, relative_difference, run_it, small_config, tensors, weight_changes

from dora_diffusion.errors import MachineError
from dora_diffusion.formats import WEIGHTS_NAME, load_adapter


@pytest.fixture
def residual_blocks_run() -> Iterator[list[int]]:
    """Grows by one whenever a residual block runs while gradients are recorded: the UNet's, not the autoencoder's."""
    calls: list[int] = []

    def count(module: nn.Module, _: object) -> None:
        if isinstance(module, ResnetBlock2D) and torch.is_grad_enabled():
            calls.append(1)

    watch = register_module_forward_pre_hook(count)
    yield calls
    watch.remove()


def test_gradient_checkpointing_computes_twice_and_changes_nothing(
    finished_run: Path, tmp_path: Path, residual_blocks_run: list[int]
) -> None:
    run_it(small_config(tmp_path / "plain", 1))
    once = len(residual_blocks_run)
    assert once > 4
    run_it(small_config(tmp_path / "run", 3, run={"gradient_checkpointing": True}))
    assert 1.7 * 3 * once < len(residual_blocks_run) - once <= 2 * 3 * once  # diffusers leaves a block out
    assert relative_difference(weight_changes(tmp_path / "run"), weight_changes(finished_run)) < 1e-5


@pytest.mark.parametrize("limit", [1e-3, 0.0])
def test_no_step_is_taken_along_a_longer_gradient_than_allowed(tmp_path: Path, limit: float) -> None:
    lengths: list[float] = []

    def measure(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        lengths.append(float(torch.cat(gradients).norm()))

    watch = register_optimizer_step_pre_hook(measure)
    try:
        run_it(small_config(tmp_path / "run", 2, optim={"max_grad_norm": limit}))
    finally:
        watch.remove()
    if limit:
        assert lengths == pytest.approx([limit, limit], rel=1e-3)
    else:
        assert len(lengths) == 2 and min(lengths) > 1e-2


def test_the_whole_gradient_of_the_norm_gives_another_adapter(finished_run: Path, tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "run", 3, adapter={"norm_grad": "full"}))
    apart = relative_difference(weight_changes(tmp_path / "run"), weight_changes(finished_run))
    assert 1e-4 < apart < 0.5  # another gradient, but of the same loss


def test_a_lora_is_trained_without_magnitudes(finished_run: Path, tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "run", 3, adapter={"kind": "lora"}))
    ours, theirs = tensors(tmp_path / "run" / WEIGHTS_NAME), tensors(finished_run / WEIGHTS_NAME)
    assert {name for name in theirs if "magnitude" not in name} == set(ours)
    assert len(theirs) == 1.5 * len(ours)
    assert load_adapter(tmp_path / "run").kind == "lora"
    assert 0.05 < relative_difference(weight_changes(tmp_path / "run"), weight_changes(finished_run)) < 1


def test_every_layer_is_moved(finished_run: Path) -> None:
    changes = weight_changes(finished_run)
    assert len(changes) == 56
    assert all(float(change.norm()) > 0 for change in changes.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides(finished_run: Path, tmp_path: Path, seed: int) -> None:
    run_it(small_config(tmp_path / "run", 3, run={"seed": seed, "checkpointing_steps": 1}))
    assert (adapter_bytes(tmp_path / "run") == adapter_bytes(finished_run)) is (seed == 0)


@pytest.mark.parametrize("setting", [{"cache_latents": False}], ids=["no cache"])
def test_the_cache_of_latents_changes_nothing(finished_run: Path, tmp_path: Path, setting: dict[str, bool]) -> None:
    run_it(small_config(tmp_path / "run", 3, data=setting))
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(finished_run)


def test_a_precision_the_machine_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="mixed_precision=fp16 needs a GPU, this is cpu.*bf16"):
        run_it(small_config(tmp_path / "run", run={"mixed_precision": "fp16"}))
    assert list(tmp_path.iterdir()) == []


def test_a_bfloat16_base_trains_a_float32_adapter(finished_run: Path, tmp_path: Path) -> None:
    run_it(small_config(tmp_path / "run", 3, run={"mixed_precision": "bf16"}))
    assert {tensor.dtype for tensor in tensors(tmp_path / "run" / WEIGHTS_NAME).values()} == {torch.float32}
    assert 1e-5 < relative_difference(weight_changes(tmp_path / "run"), weight_changes(finished_run)) < 0.5


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_as_the_run_says_whatever_was_before(tmp_path: Path, allowed: bool) -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = not allowed
        run_it(small_config(tmp_path / "run", 1, adapter={"rank": 1}, run={"allow_tf32": allowed}))
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
