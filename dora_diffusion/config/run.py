"""How long, on what, and what is written."""

from pathlib import Path
from typing import Literal

from dora_diffusion.config.fields import Settings, free, identity


class RunConfig(Settings):
    """The run: how long, on what, and what it writes."""

    output_dir: Path = free(Path("dora-run"), "folder of the run")
    seed: int = identity(0, "seed of everything drawn", ge=0)
    max_train_steps: int = free(500, "optimizer steps", ge=1)
    train_batch_size: int = identity(1, "photos a step and process (as many class images beside them)", ge=1)
    gradient_accumulation_steps: int = identity(1, "batches summed into one optimizer step", ge=1)
    gradient_checkpointing: bool = free(False, "recompute activations in the backward pass: slower, far less memory")
    auto_memory: bool = free(
        False, "on out-of-memory take the next smaller setting that keeps the arithmetic, and do the step again"
    )
    mixed_precision: Literal["no", "fp16", "bf16"] | None = identity(
        None, "precision of the frozen base; adapters are always fp32; left out, accelerate's setting"
    )
    allow_tf32: bool = free(
        False, "let an NVIDIA GPU multiply float32 matrices with TF32's 10 bits: faster, less exact"
    )
    cpu: bool = free(False, "train on the CPU even where there is a GPU")
    checkpointing_steps: int = free(
        100, "write checkpoint-<step>/ every so many steps; 0 writes none but that of the end", ge=0
    )
    checkpoints_total_limit: int | None = free(
        3, "keep this many checkpoints, deleting the oldest; None keeps all", ge=1
    )
    resume_from_checkpoint: str = free("latest", "'latest', or the name of a checkpoint folder of this run")
    validation_prompt: list[str] = free(
        [], "prompts of the previews; {trigger} and {class} in them become the trigger and the class noun"
    )
    validation_steps: int = free(0, "draw previews every so many steps; 0 draws them at the end only", ge=0)
    num_validation_images: int = free(4, "previews of each prompt", ge=1)
    report_to: str = free(
        "none",
        "trackers that accelerate knows (tensorboard, wandb, trackio), comma separated; all: those installed; or none",
    )
    logging_dir: str = free("logs", "folder of the trackers inside output_dir")
    push_to_hub: bool = free(
        False,
        "upload adapter, card and previews after the last step; needs a token that may write: hf auth login, HF_TOKEN "
        "or --hub_token",
    )
    hub_model_id: str | None = free(
        None, "repository on the hub, owner/name; left out, the name of output_dir among your own", min_length=1
    )
    overwrite: bool = free(False, "start again in a folder that holds a run")
    sentinels: bool = free(True, "watch the run for what goes wrong in silence, and stop it with the cause")
    plan_only: bool = free(False, "take two steps, tell the memory and time the run needs, and write nothing")
