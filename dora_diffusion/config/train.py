"""Every setting of a training run. Flag names are those of diffusers' DreamBooth scripts wherever one exists there."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from dora_diffusion.config.fields import Settings, free, identity
from dora_diffusion.config.presets import over_preset, preset_names
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import ADAPTERS, ATTENTION_BACKENDS, OPTIMIZERS


def _attention(name: str) -> str:
    return name if name == "auto" else ATTENTION_BACKENDS.check(name)


def _pattern(entries: list[str]) -> list[str]:
    for entry in entries:
        pattern, _, number = entry.rpartition("=")
        if not (pattern and re.fullmatch(r"[0-9]+(\.[0-9]+)?", number) and float(number) > 0):
            raise ConfigError(f"A pattern is written 'regex=number' ('attn2=32'), the number above 0, got {entry!r}.")
    return entries


def _optimizer(name: str) -> str:
    return OPTIMIZERS.check(name.lower())  # diffusers' scripts write AdamW


AttentionName = Annotated[str, AfterValidator(_attention)]
AdapterName = Annotated[str, AfterValidator(ADAPTERS.check)]
OptimizerName = Annotated[str, AfterValidator(_optimizer)]
Patterns = Annotated[list[str], AfterValidator(_pattern)]


class ModelConfig(Settings):
    """The base model."""

    pretrained_model_name_or_path: str = identity(
        "toybox", "base model: 'toybox' (embedded), a hub name, or a folder in diffusers' layout", min_length=1
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


class DataConfig(Settings):
    """The photos of the subject."""

    instance_data_dir: Path | None = identity(None, "folder with the photos of the subject (three to twenty)")
    instance_prompt: str | None = identity(
        None,
        "prompt that names the subject, e.g. 'a photo of sks dog'; left out, it is made from trigger and class noun",
    )
    trigger: str = identity("sks", "rare word that will stand for the subject", min_length=1)
    class_noun: str | None = identity(None, "what the subject is, in one or two words: dog, teapot, backpack")
    resolution: int | None = identity(
        None,
        "side of the square training picture in pixels, a multiple of 8; left out, the model's own",
        ge=32,
        le=4096,
    )
    center_crop: bool = identity(False, "always crop the centre; left out, a fresh random crop is drawn each step")
    random_flip: bool = identity(False, "mirror half of the pictures, drawn afresh each step")
    cache_latents: bool = free(True, "encode a photo once when neither its crop nor anything else about it changes")

    @model_validator(mode="after")
    def _resolution_fits_the_latents(self) -> "DataConfig":
        if self.resolution is not None and self.resolution % 8:
            raise ConfigError(f"resolution must be a multiple of 8, got {self.resolution}.")
        return self

    def prompt(self) -> str:
        """The instance prompt, written out.

        Raises:
            ConfigError: neither an instance prompt nor a class noun was given.
        """
        if self.instance_prompt:
            return self.instance_prompt
        if not self.class_noun:
            raise ConfigError(
                "What is the subject? Give --class_noun (for example: --class_noun dog) or --instance_prompt "
                "'a photo of sks dog'."
            )
        return f"a photo of {self.trigger} {self.class_noun}"


class AdapterConfig(Settings):
    """What is trained, and where."""

    kind: AdapterName = identity("dora", f"adapter kind: {', '.join(ADAPTERS)}")
    rank: int = identity(16, "rank of the low-rank update; clamped on layers that are smaller", ge=1, le=1024)
    alpha: float | None = identity(None, "the update is scaled by alpha / rank; left out, alpha is the rank", gt=0)
    targets: str = identity("attn", "UNet layers: a preset (attn, attn-mlp, full) or a regex over layer names")
    train_text_encoder: bool = identity(False, "train adapters in the text encoder too")
    text_encoder_targets: str = identity("attn", "text encoder layers: a preset (attn, attn-mlp, full) or a regex")
    rank_pattern: Patterns = identity([], "ranks of particular layers, each 'regex=rank'; the first that matches wins")
    alpha_pattern: Patterns = identity(
        [], "alphas of particular layers, each 'regex=alpha'; the first that matches wins"
    )
    norm_grad: Literal["detach", "full"] = identity(
        "detach", "whether the gradient flows through DoRA's norm (full) or not (detach, as in the paper's section 4.3)"
    )


class PriorConfig(Settings):
    """Prior preservation: pictures of the class, made by the base, keep the class from turning into the subject."""

    with_prior_preservation: bool = identity(False, "add the prior-preservation term")
    class_prompt: str | None = identity(None, "prompt of the class images; left out, 'a photo of a <class noun>'")
    class_data_dir: Path | None = free(None, "folder with class images of your own; missing ones are made by the base")
    num_class_images: int = identity(100, "how many class images to use", ge=1)
    prior_loss_weight: float = identity(1.0, "weight of the prior term", ge=0)
    sample_batch_size: int = free(4, "class images made at once", ge=1)
    class_images_steps: int = identity(25, "sampling steps of a class image", ge=1)
    class_images_guidance: float = identity(5.0, "guidance scale of a class image", ge=0)
    class_images_seed: int = identity(0, "seed of the first class image; each next one adds 1", ge=0)


class OptimConfig(Settings):
    """The optimizer and its schedule."""

    optimizer: OptimizerName = identity("adamw", f"optimizer: {', '.join(OPTIMIZERS)}")
    learning_rate: float = identity(1e-4, "learning rate of the UNet's adapters", gt=0)
    text_encoder_lr: float | None = identity(
        None, "learning rate of the text encoder's adapters; left out, a fifth of the UNet's", gt=0
    )
    adam_beta1: float = identity(0.9, "AdamW's first decay", ge=0, lt=1)
    adam_beta2: float = identity(0.999, "AdamW's second decay", ge=0, lt=1)
    adam_epsilon: float = identity(1e-8, "AdamW's epsilon", gt=0)
    adam_weight_decay: float = identity(1e-2, "weight decay of A and B; magnitudes are never decayed", ge=0)
    max_grad_norm: float = identity(1.0, "gradients are clipped to this norm; 0 switches clipping off", ge=0)
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = identity("constant", "shape of the learning rate over the run")
    lr_warmup_steps: int = identity(0, "steps in which the learning rate grows from 0", ge=0)

    @model_validator(mode="after")
    def _constant_has_no_warmup(self) -> "OptimConfig":
        if self.lr_warmup_steps and self.lr_scheduler == "constant":
            raise ConfigError(
                f"lr_scheduler constant has no warm-up, got lr_warmup_steps {self.lr_warmup_steps}. "
                "Use constant_with_warmup, or leave lr_warmup_steps out."
            )
        return self

    def text_encoder_rate(self) -> float:
        """The text encoder's learning rate: the one given, or a fifth of the UNet's."""
        return self.text_encoder_lr if self.text_encoder_lr is not None else self.learning_rate / 5


class RunConfig(Settings):
    """The run: how long, on what, and what it writes."""

    output_dir: Path = free(Path("dora-run"), "folder of the run")
    seed: int = identity(0, "seed of everything drawn", ge=0)
    max_train_steps: int = free(500, "optimizer steps", ge=1)
    train_batch_size: int = identity(1, "photos a step and process (as many class images beside them)", ge=1)
    gradient_accumulation_steps: int = identity(1, "batches summed into one optimizer step", ge=1)
    gradient_checkpointing: bool = free(False, "recompute activations in the backward pass: slower, far less memory")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = identity(
        None, "precision of the frozen base; adapters are always fp32; left out, accelerate's setting"
    )
    cpu: bool = free(False, "train on the CPU even where there is a GPU")
    checkpointing_steps: int = free(
        100, "write checkpoint-<step>/ every so many steps; 0 writes none but the last", ge=0
    )
    checkpoints_total_limit: int | None = free(
        3, "keep this many checkpoints, deleting the oldest; None keeps all", ge=1
    )
    resume_from_checkpoint: str = free("latest", "'latest', or the name of a checkpoint folder of this run")
    validation_prompt: list[str] = free([], "prompts of the previews")
    validation_steps: int = free(0, "draw previews every so many steps; 0 draws them at the end only", ge=0)
    num_validation_images: int = free(4, "previews of each prompt", ge=1)
    report_to: str = free(
        "none", "trackers that accelerate knows (tensorboard, wandb, trackio), comma separated, or none"
    )
    logging_dir: str = free("logs", "folder of the trackers inside output_dir")
    overwrite: bool = free(False, "start again in a folder that holds a run")


class TrainConfig(Settings):
    """Everything a training run is made from. Defaults, under the preset if one is named, under what is given."""

    preset: str | None = free(None, f"settings that suit a base, under your own: {', '.join(preset_names())}")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    adapter: AdapterConfig = AdapterConfig()
    prior: PriorConfig = PriorConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _lie_over_the_preset(cls, given: Any) -> Any:
        return over_preset(given) if isinstance(given, dict) else given

    def class_prompt(self) -> str:
        """The prompt of the class images, written out.

        Raises:
            ConfigError: prior preservation is on, and neither a class prompt nor a class noun was given.
        """
        if self.prior.class_prompt:
            return self.prior.class_prompt
        if not self.data.class_noun:
            raise ConfigError(
                "Prior preservation needs --class_noun (for example: dog) or --class_prompt 'a photo of a dog'."
            )
        return f"a photo of a {self.data.class_noun}"
