"""Who learns at which rate, who decays, and what the schedule makes of it."""

import math
from collections.abc import Callable

import pytest
import torch
from small_steps import small_adapter, values, with_gradients

from dora_diffusion.adapters import inject
from dora_diffusion.config import AdapterConfig, OptimConfig
from dora_diffusion.errors import ConfigError
from dora_diffusion.models import BaseModel
from dora_diffusion.training.optim import learning_rate_schedule, parameter_groups
from dora_diffusion.training.optimizers.adamw import ADAMW

LORA_PLUS = {"lora_plus_ratio": 8, "magnitude_lr": 3e-3}


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


def test_factors_magnitudes_and_text_encoder_have_rates_and_decays_of_their_own(toybox: BaseModel) -> None:
    adapter = inject(toybox, AdapterConfig(rank=2, train_text_encoder=True))
    settings = {"learning_rate": 1e-4, "text_encoder_lr": 1e-5, "adam_weight_decay_text_encoder": 0.3}
    groups = parameter_groups(adapter, OptimConfig(**settings, **LORA_PLUS))
    found = {
        (group["component"], buffer.role): (group["lr"], group["weight_decay"])
        for buffer, group in zip(adapter.buffers, groups, strict=True)
    }
    assert found == {
        ("unet", "A"): (1e-4, 0.01),
        ("unet", "B"): (pytest.approx(8e-4), 0.01),
        ("unet", "magnitude"): (3e-3, 0.0),
        ("text_encoder", "A"): (1e-5, 0.3),
        ("text_encoder", "B"): (pytest.approx(8e-5), 0.3),
        ("text_encoder", "magnitude"): (3e-3, 0.0),
    }


def test_the_first_step_of_adamw_by_hand() -> None:
    """``p - rate * (decay * p + g / (|g| + eps))``: after bias correction the means are the gradient and its square."""
    adapter = with_gradients(small_adapter())
    before = values(adapter)
    gradients = {buffer.role: buffer.parameter.grad.clone() for buffer in adapter.buffers}  # type: ignore[union-attr]
    config = OptimConfig(learning_rate=1e-3, adam_weight_decay=0.1, adam_epsilon=1e-3, **LORA_PLUS)
    ADAMW.make(adapter, config).step()
    for role, rate, decay in (("A", 1e-3, 0.1), ("B", 8e-3, 0.1), ("magnitude", 3e-3, 0.0)):
        g, p = gradients[role], before[role]
        expected = p - rate * (decay * p + g / (g.abs() + 1e-3))
        torch.testing.assert_close(values(adapter)[role], expected, rtol=1e-5, atol=1e-7)


def test_decay_pulls_at_the_factors_and_never_at_the_magnitudes(toybox: BaseModel) -> None:
    adapter = inject(toybox, AdapterConfig(rank=2))
    before = values(adapter)
    ADAMW.make(adapter, OptimConfig(learning_rate=0.5, adam_weight_decay=0.1)).step()  # gradients are 0: decay acts
    after = values(adapter)
    assert torch.equal(after["magnitude"], before["magnitude"])
    torch.testing.assert_close(after["A"], before["A"] * (1 - 0.5 * 0.1))


def test_the_settings_reach_the_optimizer(toybox: BaseModel) -> None:
    adapter = inject(toybox, AdapterConfig(rank=2))
    defaults = ADAMW.make(adapter, OptimConfig(adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-5)).defaults
    assert (defaults["betas"], defaults["eps"]) == ((0.8, 0.9), 1e-5)


def rates(config: OptimConfig, steps: int) -> list[float]:
    """The rate that each step is really taken at."""
    optimizer = ADAMW.make(small_adapter(), config)
    schedule = learning_rate_schedule(optimizer, config, steps)
    taken = []
    for _ in range(steps):
        taken.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return taken


@pytest.mark.parametrize(
    ("shape", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1, 1]),
        ("constant_with_warmup", 2, [0, 0.5, 1, 1, 1]),
        ("linear", 2, [0, 0.5, 1, 2 / 3, 1 / 3]),
        ("cosine", 2, [0, 0.5, 1, 0.75, 0.25]),
    ],
)
def test_the_rate_over_a_run_of_five_steps(shape: str, warmup: int, expected: list[float]) -> None:
    config = OptimConfig(learning_rate=1.0, lr_scheduler=shape, lr_warmup_steps=warmup)  # type: ignore[arg-type]
    assert rates(config, 5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        (
            {"lr_scheduler": "cosine_with_restarts", "lr_num_cycles": 3},
            lambda progress: (1 + math.cos(math.pi * (3 * progress % 1))) / 2,
        ),
        # It ends at 1e-7 and not at 0.
        ({"lr_scheduler": "polynomial", "lr_power": 2}, lambda progress: (1 - 1e-7) * (1 - progress) ** 2 + 1e-7),
    ],
    ids=["restarts", "polynomial"],
)
def test_cycles_and_power_shape_the_rate(settings: dict[str, object], rate: Callable[[float], float]) -> None:
    taken = rates(OptimConfig(learning_rate=1.0, **settings), 10)
    assert taken == pytest.approx([rate(step / 10) for step in range(10)])


@pytest.mark.parametrize(("name", "shape"), [("lr_num_cycles", "cosine_with_restarts"), ("lr_power", "polynomial")])
def test_a_schedule_without_it_refuses_what_it_would_ignore(name: str, shape: str) -> None:
    with pytest.raises(
        ConfigError, match=f"lr_scheduler cosine has no {name}, got 2. Use {shape}, or leave {name} out"
    ):
        OptimConfig(lr_scheduler="cosine", **{name: 2})
