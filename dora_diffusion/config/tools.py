"""Settings of what makes adapter files from adapter files, or from whole models."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from dora_diffusion.config.fields import free
from dora_diffusion.config.ranks import Ranks
from dora_diffusion.config.use import FILE_PRECISION, FormatName, Precision
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import FORMATS

_FORMATS = f"format of the file: {', '.join(FORMATS)}"


class ConvertConfig(Ranks):
    """An adapter file as another tool reads it."""

    adapter: Path | None = free(None, "run folder or adapter file, of any format that can be read")
    format: FormatName = free("diffusers", _FORMATS)
    output: Path = free(Path("converted.safetensors"), "file to write")
    precision: Precision = free("fp32", FILE_PRECISION)
    plain_lora: bool = free(False, "turn it into the nearest LoRA, as the format lora does by itself; says the loss")
    pretrained_model_name_or_path: str | None = free(None, "base model; left out, the one the adapter was trained on")

    @model_validator(mode="after")
    def _ranks_are_used(self) -> "ConvertConfig":
        if self.any_given() and not self.plain_lora and self.format != "lora":
            raise ConfigError("rank, energy and error say how the nearest LoRA is found: give --plain_lora with them.")
        return self


class ResizeConfig(Ranks):
    """An adapter of the same kind at another rank."""

    rank: int | None = free(None, "new rank of every layer; with energy or error, the largest", ge=1, le=4096)
    adapter: Path | None = free(None, "run folder or adapter file")
    format: FormatName = free("diffusers", _FORMATS)
    output: Path = free(Path("resized.safetensors"), "file to write")
    pretrained_model_name_or_path: str | None = free(None, "base model; left out, the one the adapter was trained on")


class CombineConfig(Ranks):
    """Several adapters of one base as a single LoRA: the sum of what each does to the weights."""

    adapters: list[Path] = free([], "run folders or adapter files")
    weights: list[float] = free([], "one number an adapter; left out, 1 for each")
    format: FormatName = free("diffusers", _FORMATS)
    output: Path = free(Path("combined.safetensors"), "file to write")
    full: bool = free(False, "keep the sum whole instead of approximating it: as large as the layers it changes")
    pretrained_model_name_or_path: str | None = free(None, "base model; left out, that of the first adapter")

    @model_validator(mode="after")
    def _fits_together(self) -> "CombineConfig":
        if self.weights and len(self.weights) != len(self.adapters):
            raise ConfigError(
                f"Give one weight an adapter, or none: got {len(self.weights)} for {len(self.adapters)} adapters."
            )
        if self.full and self.any_given():
            raise ConfigError("full keeps every rank: leave rank, energy and error out, or leave --full out.")
        return self


class ExtractConfig(Ranks):
    """An adapter that leads from a base to a model that was tuned from it."""

    pretrained_model_name_or_path: str | None = free(None, "base model the tuned one was made from")
    tuned_model_name_or_path: str | None = free(None, "the tuned model: a folder or a .safetensors checkpoint")
    kind: Literal["dora", "lora"] = free("dora", "dora also takes the norm of every row over, exactly; or lora")
    targets: str = free("full", "layers: a preset (attn, attn-mlp, full) or a regex over layer names")
    format: FormatName = free("diffusers", _FORMATS)
    output: Path = free(Path("extracted.safetensors"), "file to write")
    trigger: str | None = free(None, "the word that the tuned model was taught, for the file's header", min_length=1)
    instance_prompt: str | None = free(
        None, "the prompt it was taught with, which generate draws where none is given", min_length=1
    )
