"""Every setting of the optimizer reaches the run: another value ends in other weights or another optimizer state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import run_it, small_config, tensors

from dora_diffusion.config import OptimConfig
from dora_diffusion.config.fields import walk
from dora_diffusion.formats import WEIGHTS_NAME

STEPS = 3
PRODIGY = {"optimizer": "prodigy", "learning_rate": 1.0}
# (what the run has besides, another value); compared with the run that has the first alone.
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "optimizer": ({}, "lion"),
    "learning_rate": ({}, 2e-3),
    "text_encoder_lr": ({}, 1e-3),
    "lora_plus_ratio": ({}, 4.0),
    "magnitude_lr": ({}, 1e-2),
    "new_tokens_lr": ({}, 1e-3),
    "train_text_encoder_frac": ({}, 0.5),
    "adam_beta1": ({}, 0.8),
    "adam_beta2": ({}, 0.9),
    "adam_epsilon": ({}, 1e-3),
    "adam_weight_decay": ({}, 1.0),
    "adam_weight_decay_text_encoder": ({}, 1.0),
    "prodigy_beta3": (PRODIGY, 0.5),
    "prodigy_decouple": (PRODIGY, False),
    "prodigy_use_bias_correction": (PRODIGY, False),
    "prodigy_safeguard_warmup": (PRODIGY, False),
    "max_grad_norm": ({}, 1e-3),
    "lr_scheduler": ({}, "linear"),
    "lr_warmup_steps": ({"lr_scheduler": "constant_with_warmup"}, 3),
    "lr_num_cycles": ({"lr_scheduler": "cosine_with_restarts"}, 2),
    "lr_power": ({"lr_scheduler": "polynomial"}, 2.0),
    "ema_decay": ({}, 0.9),
}


@pytest.fixture(scope="module")
def end_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], dict[str, torch.Tensor]]:
    """``end_of(settings)``: the tensors of the adapter file and of the optimizer's state after a short run."""
    done: dict[str, dict[str, torch.Tensor]] = {}

    def run(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
        key = repr(sorted(settings.items()))
        if key not in done:
            folder: Path = tmp_path_factory.mktemp("run")
            run_it(small_config(folder, STEPS, optim=settings, adapter={"train_text_encoder": True, "new_tokens": 1}))
            state = tensors(folder / f"checkpoint-{STEPS}" / "optimizer.safetensors")
            done[key] = {**tensors(folder / WEIGHTS_NAME), **state}
        return done[key]

    return run


def test_every_setting_is_listed() -> None:
    assert set(CHANGES) == {name for name, _ in walk(OptimConfig)}


@pytest.mark.parametrize("name", CHANGES)
def test_another_value_is_another_run(name: str, end_of: Callable[[dict[str, Any]], dict[str, torch.Tensor]]) -> None:
    besides, value = CHANGES[name]
    before, after = end_of(besides), end_of({**besides, name: value})
    assert before.keys() != after.keys() or any(not torch.equal(before[key], after[key]) for key in before)
