"""Who learns at which rate, and who decays."""

import pytest
import torch

from dora_diffusion.adapters import inject
from dora_diffusion.config import AdapterConfig, OptimConfig
from dora_diffusion.models import BaseModel
from dora_diffusion.training.optim import learning_rate_schedule, parameter_groups
from dora_diffusion.training.optimizers.adamw import ADAMW


@pytest.mark.parametrize(("given", "rate"), [(None, 2e-5), (3e-6, 3e-6)], ids=["a fifth", "given"])
def test_the_text_encoder_has_a_rate_of_its_own(toybox: BaseModel, given: float | None, rate: float) -> None:
    adapter = inject(toybox, AdapterConfig(rank=2, train_text_encoder=True))
    config = OptimConfig(learning_rate=1e-4, text_encoder_lr=given, adam_weight_decay=0.1)
    found = {
        (buffer.component, buffer.role): (group["lr"], group["weight_decay"])
        for buffer, group in zip(adapter.buffers, parameter_groups(adapter, config), strict=True)
    }
    assert found == {
        (component, role): (pytest.approx(lr), 0.0 if role == "magnitude" else 0.1)
        for component, lr in (("unet", 1e-4), ("text_encoder", rate))
        for role in ("A", "B", "magnitude")
    }


def test_decay_pulls_at_the_factors_and_never_at_the_magnitudes(toybox: BaseModel) -> None:
    adapter = inject(toybox, AdapterConfig(rank=2))
    before = {buffer.role: buffer.parameter.detach().clone() for buffer in adapter.buffers}
    ADAMW.make(
        adapter, OptimConfig(learning_rate=0.5, adam_weight_decay=0.1)
    ).step()  # gradients are 0: decay alone acts
    after = {buffer.role: buffer.parameter.detach() for buffer in adapter.buffers}
    assert torch.equal(after["magnitude"], before["magnitude"])
    torch.testing.assert_close(after["A"], before["A"] * (1 - 0.5 * 0.1))


def test_the_settings_reach_the_optimizer(toybox: BaseModel) -> None:
    adapter = inject(toybox, AdapterConfig(rank=2))
    defaults = ADAMW.make(adapter, OptimConfig(adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-5)).defaults
    assert (defaults["betas"], defaults["eps"]) == ((0.8, 0.9), 1e-5)


@pytest.mark.parametrize(
    ("shape", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1, 1]),
        ("constant_with_warmup", 2, [0, 0.5, 1, 1, 1]),
        ("linear", 2, [0, 0.5, 1, 2 / 3, 1 / 3]),
        ("cosine", 2, [0, 0.5, 1, 0.75, 0.25]),
    ],
)
def test_the_rate_over_a_run_of_five_steps(toybox: BaseModel, shape: str, warmup: int, expected: list[float]) -> None:
    """The rate each step is really taken at."""
    config = OptimConfig(learning_rate=1.0, lr_scheduler=shape, lr_warmup_steps=warmup)  # type: ignore[arg-type]
    optimizer = ADAMW.make(inject(toybox, AdapterConfig(rank=1, targets=r"mid_block.*attn1\.to_q$")), config)
    schedule = learning_rate_schedule(optimizer, config, 5)
    taken = []
    for _ in range(5):
        taken.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert taken == pytest.approx(expected)
