"""Any optimizer's state as tensors and plain numbers, and back: to the last bit, without a pickle."""

from typing import Any

import torch
from torch import Tensor

# What the settings decide: it is set anew when the optimizer is made, and by the schedule.
_SETTINGS = ("lr", "initial_lr", "weight_decay")


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by "parameter.key", and the rest: {"parameters": {"parameter.key": value}, "groups": [{key: number}]}.

    Parameters are numbered through all groups. Of the groups it keeps the numbers that are no longer what they were
    when the optimizer was made: Prodigy's step size and schedule-free's sums live there.
    """
    entries = {
        f"{number}.{key}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    # Copies, because bitsandbytes' parameters share one table and safetensors refuses what shares memory.
    tensors = {name: value.detach().clone() for name, value in entries.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in entries.items() if not isinstance(value, Tensor)}
    return tensors, {"parameters": plain, "groups": [_moved(group, optimizer) for group in optimizer.param_groups]}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Put back what ``optimizer_state`` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **plain["parameters"]}.items():
        parameter, _, key = name.partition(".")
        state.setdefault(int(parameter), {})[key] = value
    groups = [
        group | moved for group, moved in zip(optimizer.state_dict()["param_groups"], plain["groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _moved(group: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        key: value
        for key, value in group.items()
        if isinstance(value, int | float) and key not in _SETTINGS and value != optimizer.defaults.get(key)
    }
