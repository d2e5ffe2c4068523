"""Which base model, and how it is read."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from dora_diffusion.config.fields import Settings, free, identity
from dora_diffusion.registry import ATTENTION_BACKENDS


def _attention(name: str) -> str:
    return name if name == "auto" else ATTENTION_BACKENDS.check(name)


AttentionName = Annotated[str, AfterValidator(_attention)]
PICKLES = "read .bin and .ckpt weights, which are pickles and can run any code they like"


class ModelConfig(Settings):
    """The base model."""

    pretrained_model_name_or_path: str = identity(
        "toybox",
        "base model: 'toybox' (embedded), a hub name, a folder in diffusers' layout, or one .safetensors checkpoint",
        min_length=1,
    )
    pretrained_vae_model_name_or_path: str | None = identity(
        None, "another autoencoder, a hub name or a folder in diffusers' layout; left out, the base's own", min_length=1
    )
    revision: str | None = identity(None, "revision of the hub repository")
    variant: str | None = identity(
        None, "weight files to read, e.g. fp16; left out, whatever the folder holds is found"
    )
    prediction_type: Literal["epsilon", "v_prediction"] | None = identity(
        None,
        "what the model predicts; left out, the model's own configuration decides, and for a single SD 2.x file, which "
        "does not say, v_prediction (a 512 base file needs epsilon)",
    )
    rescale_betas_zero_snr: bool = identity(
        False,
        "rescale the noise schedule so that its last timestep is pure noise, for models that predict v; drawing "
        "follows (arXiv:2305.08891)",
    )
    allow_pickle: bool = free(False, PICKLES)
    attention: AttentionName = free("auto", f"attention backend: auto, {', '.join(ATTENTION_BACKENDS)}")
