"""The noise schedule of a base: the model's own, or with what the user says over it."""

import inspect
from collections.abc import Mapping
from typing import Any

from dora_diffusion.errors import ConfigError

RESCALED = "rescale_betas_zero_snr"


def set_schedule(pipe: Any, prediction_type: str | None, rescale_betas_zero_snr: bool) -> None:
    """Give ``pipe`` a scheduler that training and drawing both start from.

    With ``rescale_betas_zero_snr`` the last timestep is pure noise (arXiv:2305.08891, algorithm 1), and drawing begins
    there (section 3.3: trailing steps). A scheduler that cannot be rescaled gives way to DDIM, as in the paper.

    Args:
        prediction_type: None keeps the model's own.

    Raises:
        ConfigError: rescaled, and the model predicts the noise.
    """
    scheduler = pipe.scheduler
    if prediction_type is not None:
        scheduler = type(scheduler).from_config(scheduler.config, prediction_type=prediction_type)
    if rescale_betas_zero_snr:
        from diffusers import DDIMScheduler

        can = RESCALED in inspect.signature(type(scheduler).__init__).parameters
        kind = type(scheduler) if can else DDIMScheduler
        scheduler = kind.from_config(scheduler.config, **{RESCALED: True}, timestep_spacing="trailing")
    if is_rescaled(scheduler) and scheduler.config.prediction_type == "epsilon":
        raise ConfigError(
            "A schedule rescaled to zero terminal SNR cannot train a model that predicts the noise (epsilon): its last "
            "timestep shows nothing but the noise, so there is nothing to learn there and no picture to recover. Leave "
            "--rescale_betas_zero_snr out, or give --prediction_type v_prediction if that is what the model predicts."
        )
    pipe.scheduler = scheduler


def check_steps(scheduler: Any, steps: int, sampler: str) -> None:
    """Refuse a number of sampling steps for which the schedule has no timesteps.

    Which numbers those are differs by sampler and by how the base spaces its steps, so the sampler itself is asked.

    Args:
        scheduler: the sampler over the base's schedule; its timesteps are set anew.
        sampler: what the user calls it.

    Raises:
        ConfigError: the steps do not fit; the message says which number below does.
    """
    if _fit(scheduler, steps):
        return
    trained = scheduler.config.num_train_timesteps
    fewer = next((count for count in range(min(steps - 1, trained), 0, -1) if _fit(scheduler, count)), 1)
    raise ConfigError(
        f"{steps} sampling steps do not fit the noise schedule of this base, which has {trained} timesteps, with the "
        f"sampler {sampler}. Take {fewer}; pictures hardly change past 50."
    )


def _fit(scheduler: Any, steps: int) -> bool:
    """Whether each step has a timestep of its own, none of them outside what the base was trained on."""
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, IndexError):
        return False
    # A set: PNDM visits some of its timesteps more than once, by design.
    timesteps = set(scheduler.timesteps.tolist())
    return len(timesteps) >= steps and min(timesteps) >= 0 and max(timesteps) < scheduler.config.num_train_timesteps


def is_rescaled(scheduler: Any) -> bool:
    """Whether the scheduler's last timestep has no signal left."""
    return bool(scheduler.config.get(RESCALED, False))


def schedule_facts(scheduler: Any) -> dict[str, str]:
    """The settings of ``load_base`` that bring this schedule back, as text for a file's header."""
    facts = {"prediction_type": str(scheduler.config.prediction_type)}
    return {**facts, RESCALED: "true"} if is_rescaled(scheduler) else facts


def schedule_from(facts: Mapping[str, str]) -> dict[str, Any]:
    """``load_base``'s settings from ``schedule_facts``; a file that knows nothing leaves them to the model."""
    return {"prediction_type": facts.get("prediction_type"), RESCALED: facts.get(RESCALED) == "true"}
