"""Settings of what is done with a trained adapter: pictures, merged pipelines, files for other tools."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from dora_diffusion.config.fields import Settings, free
from dora_diffusion.config.model import PICKLES, AttentionName
from dora_diffusion.config.ranks import Ranks
from dora_diffusion.errors import ConfigError
from dora_diffusion.registry import ATTENTION_BACKENDS, FORMATS, READERS, SAMPLERS


def _sampler(name: str) -> str:
    return name if name == "model" else SAMPLERS.check(name)


SamplerName = Annotated[str, AfterValidator(_sampler)]
FormatName = Annotated[str, AfterValidator(FORMATS.check)]
ReaderName = Annotated[str, AfterValidator(READERS.check)]
Precision = Literal["fp32", "fp16", "bf16"]
FILE_PRECISION = "precision of the factors; magnitudes stay fp32"


class GenerateConfig(Settings):
    """Pictures from a base model with an adapter."""

    adapter: Path | None = free(None, "run folder or adapter file; left out, the base model alone draws")
    pretrained_model_name_or_path: str | None = free(None, "base model; left out, the one the adapter was trained on")
    allow_pickle: bool = free(False, PICKLES)
    prompt: str | None = free(None, "what to draw; left out, the prompt the adapter was taught with")
    negative_prompt: str = free("", "what to keep out")
    strength: float = free(1.0, "0 is the base, 1 the adapter; linear in the weights", ge=-2, le=3)
    mode: Literal["merged", "live"] = free("merged", "merge the adapter into the weights first, or keep it beside them")
    seed: int = free(0, "seed of the first picture; each next one adds 1", ge=0)
    num_images: int = free(4, "how many pictures", ge=1, le=1000)
    sample_batch_size: int = free(4, "pictures made at once", ge=1)
    num_inference_steps: int = free(25, "sampling steps", ge=1, le=1000)
    guidance_scale: float | None = free(
        None, "how strictly the prompt is followed; left out, what suits the base", ge=0, le=50
    )
    sampler: SamplerName = free("model", f"model (the base's own), {', '.join(SAMPLERS)}")
    height: int | None = free(
        None, "height in pixels, a multiple of 8; left out, the model's own", ge=32, le=4096, multiple_of=8
    )
    width: int | None = free(
        None, "width in pixels, a multiple of 8; left out, the model's own", ge=32, le=4096, multiple_of=8
    )
    attention: AttentionName = free("auto", f"attention backend: auto, {', '.join(ATTENTION_BACKENDS)}")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = free("auto", "auto: fp32 on a CPU, fp16 on a GPU")
    cpu: bool = free(False, "draw on the CPU even where there is a GPU")
    output_dir: Path = free(Path("outputs"), "folder for the pictures")


class MergeConfig(Settings):
    """A plain pipeline with the adapter merged in."""

    adapter: Path | None = free(None, "run folder or adapter file")
    output_dir: Path = free(Path("merged"), "folder of the merged pipeline")
    single_file: bool = free(
        False, "write one checkpoint, <output_dir>.safetensors, that A1111 and ComfyUI load, instead of a folder"
    )
    pretrained_model_name_or_path: str | None = free(None, "base model; left out, the one the adapter was trained on")
    allow_pickle: bool = free(False, PICKLES)
    strength: float = free(1.0, "0 is the base, 1 the adapter", ge=-2, le=3)
    precision: Precision = free("fp32", "precision of the written weights")


class ExportConfig(Ranks):
    """An adapter file for another tool. The ranks are those of the format lora."""

    adapter: Path | None = free(None, "run folder or adapter file")
    format: FormatName = free("diffusers", f"format: {', '.join(FORMATS)}")
    output: Path = free(Path("adapter.safetensors"), "file to write; for peft a folder")
    pretrained_model_name_or_path: str | None = free(None, "base model; left out, the one the adapter was trained on")
    precision: Precision = free("fp32", FILE_PRECISION)

    @model_validator(mode="after")
    def _ranks_are_used(self) -> "ExportConfig":
        if self.any_given() and self.format != "lora":
            raise ConfigError(
                f"rank, energy and error say how the nearest LoRA is found, and {self.format} keeps the adapter as it "
                "is: give --format lora with them, or leave them out."
            )
        return self


class InspectConfig(Settings):
    """What an adapter file holds."""

    pretrained_model_name_or_path: str | None = free(
        None, "base to compare the change with; left out, the adapter's own if it can be had without a download"
    )
    layers: bool = free(False, "list every layer, with its rank and the size of its update")
    as_json: bool = free(False, "print one JSON document, every layer in it, instead of text (also --json)")


class VerifyConfig(Settings):
    """Whether an adapter file, of whatever tool, gives a run's weights in the programs that read it."""

    against: Path | None = free(None, "run folder or adapter file whose weights the file should give")
    reader: ReaderName | None = free(None, f"one reader alone: {', '.join(READERS)}; left out, all of them")
    pretrained_model_name_or_path: str | None = free(None, "base model; left out, the one the run was trained on")
    picture: bool = free(False, "draw the same picture from the run and from the file, and tell how near they are")
    prompt: str | None = free(None, "what that picture shows; left out, the prompt the run was taught with")
    seed: int = free(0, "seed of that picture", ge=0)
    num_inference_steps: int = free(25, "sampling steps of that picture", ge=1, le=1000)
    cpu: bool = free(False, "draw on the CPU even where there is a GPU")
    output_dir: Path = free(Path("outputs"), "folder for the pair of pictures")
    as_json: bool = free(False, "print one JSON document instead of a table (also --json)")


class EvaluateConfig(Settings):
    """How well an adapter of the embedded base learned its subject: likeness, prompt-following, leakage, drift."""

    adapter: Path | None = free(None, "run folder or adapter file")
    instance_data_dir: Path | None = free(None, "the photos it was taught with; left out, those its run names")
    held_out_data_dir: Path | None = free(
        None, "other photos of the subject, not trained on; left out, the training photos are compared with one another"
    )
    class_noun: str | None = free(None, "its class, 'mug'; left out, the one its run was told")
    description: str | None = free(
        None, "the subject in words the base knows, 'red striped mug'; left out, its main colour as the eye sees it"
    )
    strength: float = free(1.0, "0 is the base, 1 the adapter", ge=-2, le=3)
    seed: int = free(0, "seed of the first picture; each next one adds 1", ge=0)
    num_images: int = free(3, "pictures a scene; there are eight scenes", ge=1, le=100)
    num_drift_images: int = free(2, "pictures of every other class; 0 leaves drift out", ge=0, le=100)
    sample_batch_size: int = free(4, "pictures made at once", ge=1)
    num_inference_steps: int = free(25, "sampling steps", ge=1, le=1000)
    guidance_scale: float | None = free(
        None, "how strictly the prompt is followed; left out, what suits the base", ge=0, le=50
    )
    sampler: SamplerName = free("model", f"model (the base's own), {', '.join(SAMPLERS)}")
    cpu: bool = free(False, "draw on the CPU even where there is a GPU")
    as_json: bool = free(False, "print one JSON document instead of a table (also --json)")
    output_dir: Path | None = free(None, "folder for report.json and a sheet; left out, nothing is written")


class DoctorConfig(Settings):
    """What this machine has, and whether the photos are fit for training."""

    instance_data_dir: Path | None = free(None, "folder with photos to check")
    pretrained_model_name_or_path: str = free("toybox", "base model that the photos are for", min_length=1)
    resolution: int | None = free(
        None, "side in pixels that the photos are to be trained at; left out, the base's own", ge=32, le=4096
    )
    as_json: bool = free(False, "print one JSON document instead of text (also --json)")


class DemoConfig(Settings):
    """Train and draw a sample subject on the embedded base."""

    output_dir: Path = free(Path("demo-output"), "folder for the run and the sheet")
    subject: str = free("teapot", "which sample subject")
    max_train_steps: int | None = free(None, "training steps; left out, as many as the sample says", ge=1)
    overwrite: bool = free(False, "start again in a folder that holds a demo")


class AppConfig(Settings):
    """The studio: teach and draw in a browser."""

    host: str = free("127.0.0.1", "address to serve; any other needs DORA_STUDIO_LOGIN=user:password", min_length=1)
    port: int = free(7860, "port to serve", ge=1, le=65535)
    home: Path | None = free(
        None, "folder of subjects, trainings and pictures; left out, DORA_HOME or ~/.dora_diffusion"
    )
    browser: bool = free(True, "open the page in a browser, where there is a screen")
    share: bool = free(False, "a public address through Gradio's servers; needs DORA_STUDIO_LOGIN=user:password")
    mcp: bool = free(False, "offer the endpoints to assistants by MCP, without a login; needs dora-diffusion[mcp]")
