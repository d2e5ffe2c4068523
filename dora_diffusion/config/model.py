"""Which base model, and how it is read."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from dora_diffusion.config.fields import Settings, free, identity
from dora_diffusion.registry import ATTENTION_BACKENDS


def _attention(name: str) -> str:
    return name if name == "auto" else ATTENTION_BACKENDS.check(name)


AttentionName = Annotated[str, AfterValidator(_attention)]


class ModelConfig(Settings):
    """The base model."""

    pretrained_model_name_or_path: str = identity(
        "toybox", "base model: 'toybox' (embedded), a hub name, or a folder in diffusers' layout", min_length=1
    )
    pretrained_vae_model_name_or_path: str | None = identity(
        None, "another autoencoder, a hub name or a folder in diffusers' layout; left out, the base's own", min_length=1
    )
    revision: str | None = identity(None, "revision of the hub repository")
    variant: str | None = identity(
        None, "weight files to read, e.g. fp16; left out, whatever the folder holds is found"
    )
    prediction_type: Literal["epsilon", "v_prediction"] | None = identity(
        None, "what the model predicts; left out, the model's own configuration decides"
    )
    allow_pickle: bool = free(False, "read .bin weights, which are pickles and can run any code they like")
    attention: AttentionName = free("auto", f"attention backend: auto, {', '.join(ATTENTION_BACKENDS)}")
