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
