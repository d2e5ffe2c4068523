"""Rates, decay and schedule over an adapter's flat buffers; which optimizer uses them is ``optimizers/``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dora_diffusion.adapters import Adapter
from dora_diffusion.adapters.adapter import TOKENS
from dora_diffusion.adapters.flat import FlatBuffer
from dora_diffusion.config import OptimConfig, TrainConfig
from dora_diffusion.registry import ADAPTERS, OPTIMIZERS

Group = dict[str, Any]


def parameter_groups(adapter: Adapter, config: OptimConfig) -> list[Group]:
    """One group a buffer, with its component's name under "component".

    Magnitudes and new tokens are never decayed: decay pulls to 0, not to the base's norm or to a word's usual size.
    """
    return [
        {
            "params": [buffer.parameter],
            "lr": learning_rate(buffer, config),
            "weight_decay": 0.0 if buffer.role in ("magnitude", TOKENS) else _decay(buffer, config),
            "component": buffer.component,
        }
        for buffer in adapter.buffers
    ]


def learning_rate(buffer: FlatBuffer, config: OptimConfig) -> float:
    """A's is its component's, B's ``lora_plus_ratio`` times that (arXiv:2402.12354), magnitudes may have their own."""
    if buffer.role == "magnitude" and config.magnitude_lr is not None:
        return config.magnitude_lr
    if buffer.role == TOKENS:
        return config.new_tokens_rate()
    rate = config.text_encoder_rate() if _is_of_text_encoder(buffer.component) else config.learning_rate
    return rate * config.lora_plus_ratio if buffer.role == "B" else rate


def _decay(buffer: FlatBuffer, config: OptimConfig) -> float:
    return config.text_encoder_decay() if _is_of_text_encoder(buffer.component) else config.adam_weight_decay


def _is_of_text_encoder(component: str) -> bool:
    return component.startswith("text_encoder")


def learning_rate_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, max_train_steps: int) -> Any:
    """diffusers' schedules, stepped once an optimizer step, whatever the accumulation and the number of processes."""
    from diffusers.optimization import get_scheduler

    return get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=max_train_steps,
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )


def notes_on(config: TrainConfig) -> Iterator[str]:
    """What the user should know of these settings: what does not go together, and what nothing makes use of."""
    yield from OPTIMIZERS.load(config.optim.optimizer).notes(config.optim)
    idle = [] if ADAPTERS.load(config.adapter.kind).has_magnitude else [("magnitude_lr", "a lora has no magnitudes")]
    if not config.adapter.train_text_encoder:
        names = ("text_encoder_lr", "adam_weight_decay_text_encoder")
        idle += [(name, "the text encoder is not trained; see --train_text_encoder") for name in names]
    if not config.adapter.trains_text():
        why = "no text encoder and no new token is trained; see --train_text_encoder and --new_tokens"
        idle.append(("train_text_encoder_frac", why))
    if not config.adapter.new_tokens:
        idle.append(("new_tokens_lr", "there are no new tokens; see --new_tokens"))
        if config.adapter.new_tokens_init is not None:
            yield "new_tokens_init is not used: there are no new tokens; see --new_tokens."
    for name, why in idle:
        if getattr(config.optim, name) != type(config.optim).model_fields[name].default:
            yield f"{name} is not used: {why}."


@contextmanager
def text_encoders_held_still(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the block the optimizer passes the text encoders' parameters over: no step, no decay, no momentum."""
    groups = [group for group in optimizer.param_groups if _is_of_text_encoder(group["component"])]
    parameters = [parameter for group in groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None  # what every optimizer takes for "not this one"
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


def stop_gradients_of_text_encoders(adapter: Adapter) -> None:
    """Let no gradient be computed for the text encoders' adapters and the word: their forward is a frozen model's."""
    for plan in adapter.plans:
        if _is_of_text_encoder(plan.component):
            slot = adapter.layers[plan.name].slot
            leaves = (slot.A, slot.B, slot.magnitude) if adapter.variant.has_magnitude else (slot.A, slot.B)
            for leaf in leaves:
                leaf.requires_grad_(False)
    for embedding in adapter.word.embeddings.values() if adapter.word is not None else ():
        embedding.rows.requires_grad_(False)
